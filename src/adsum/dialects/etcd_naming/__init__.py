"""TODO: etcd_naming."""
