"""The store on etcd: for many nodes, any of which may die."""

from adsum.stores.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
