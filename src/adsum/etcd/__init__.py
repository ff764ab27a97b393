"""etcd's v3 protocol, as far as Adsum speaks it: calls, transactions, watches that resume, leases kept alive."""
