"""The stores by the scheme of their URL. To add one: its file, one line here, and it passes the contract suite."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import without_credentials
from adsum.ports import Store

STORES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "memory": "adsum.stores.memory:MemoryStore",
        "etcd": "adsum.stores.etcd:EtcdStore",
        "sqlite": "adsum.stores.sqlite:SqliteStore",
    }
)
"""Scheme → where it is, imported when chosen."""


def store(url: str) -> Store:
    """The store of a URL, not opened yet. Raises `Invalid` for an unknown scheme or what its store can't read."""
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in STORES:
        known = ", ".join(f"{name}:" for name in STORES)
        raise Invalid("store", f"must be a URL that starts with one of {known}, not {without_credentials(url)!r}")
    module, _, kind = STORES[scheme].partition(":")
    opened: Store = getattr(import_module(module), kind).from_url(url)
    return opened
