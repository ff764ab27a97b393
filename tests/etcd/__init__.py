"""Speaking with etcd."""
