"""etcd's gRPC naming: usable instances as keys in etcd, and instances that other programs register there."""
