"""A client of etcd's v3 protocol: calls, transactions, watches that resume, leases that are kept alive."""
