"""The dialects by name. To add one: its folder, and one line in `DIALECTS` (CONTRIBUTING.md has the recipe)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from adsum.dialects.etcd_naming.settings import EtcdNamingSettings
from adsum.dialects.xds.settings import XdsSettings

if TYPE_CHECKING:
    from adsum.dialects.dialect import Dialect, DialectContext

    DialectFactory = Callable[[DialectContext], Dialect | None]
    """Makes a dialect; None if it is switched off."""

DIALECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "native": "adsum.dialects.native.dialect",
        "xds": "adsum.dialects.xds.dialect",
        "etcd-naming": "adsum.dialects.etcd_naming.dialect",
    }
)
"""Name → the module with the dialect's `create(context)`. Every node imports and creates all of them, in this order."""


@dataclass(frozen=True)
class DialectSettings(XdsSettings, EtcdNamingSettings):
    """The settings of all dialects; `adsum serve` has them as flags. A dialect without settings is not among the bases.

    A module of settings must import quickly: commands that start no node load it, too.
    """

    def check_dialects(self, store: str) -> None:
        """Calls `check_settings` of each base. `store` is the URL of the node's store. Raises `Invalid`."""
        for part in type(self).__mro__:
            check = vars(part).get("check_settings")
            if check is not None:
                check(self, store)

    def dialect_addresses(self) -> dict[str, str]:
        """Returns the address of each listener that `listener_addresses` of a base returns, by its setting."""
        addresses: dict[str, str] = {}
        for part in type(self).__mro__:
            listening = vars(part).get("listener_addresses")
            if listening is not None:
                addresses |= listening(self)
        return addresses


def factory(name: str) -> DialectFactory:
    """Returns the function that makes the dialect of this name. Raises `KeyError` for an unknown name."""
    return cast("DialectFactory", import_module(DIALECTS[name]).create)
