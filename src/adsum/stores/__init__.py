"""The stores by the scheme of their URL.

To add a store, add its file or folder and one line to `STORES`; it must pass the contract suite.
"""

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
"""URL scheme → import path of the store class. A class is imported when its scheme is chosen."""


def store(url: str) -> Store:
    """Returns the store of a URL, not opened yet. Raises `Invalid` for an unknown scheme or a malformed URL."""
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in STORES:
        schemes = ", ".join(f"{name}:" for name in STORES)
        raise Invalid("store", f"must be a URL that starts with one of {schemes}, not {without_credentials(url)!r}")
    module, _, class_name = STORES[scheme].partition(":")
    created: Store = getattr(import_module(module), class_name).from_url(url)
    return created
