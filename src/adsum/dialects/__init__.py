"""The dialects by name. To add one: its file or folder, one line here, and it passes its own clients' tests."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from adsum.core.errors import AdsumError

DIALECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "etcd-naming": "adsum.dialects.etcd_naming.etcd_naming:EtcdNaming",
        "native": "adsum.dialects.native:Native",
        "xds": "adsum.dialects.xds:Xds",
    }
)
"""Name → where it is, imported when chosen."""


class UnknownDialect(AdsumError):
    """No dialect has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no dialect is named {name!r}; there are {', '.join(DIALECTS)}")
        self.name = name


def dialect(name: str) -> Any:
    """The class of that dialect; what it is built from is its own affair. Raises `UnknownDialect`."""
    if name not in DIALECTS:
        raise UnknownDialect(name)
    module, _, speaker = DIALECTS[name].partition(":")
    return getattr(import_module(module), speaker)
