"""The store on etcd, for registries of several nodes."""

from adsum.stores.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
