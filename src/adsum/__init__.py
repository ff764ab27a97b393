"""Adsum: service discovery. The library is `adsum.Client` (or `adsum.SyncClient`); the registry is `adsum serve`.

Names are imported at first use, so that `import adsum` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from adsum.version import __version__ as __version__

if TYPE_CHECKING:
    from adsum.balance.ejection import OutlierOptions as OutlierOptions
    from adsum.balance.picker import NoEndpoint as NoEndpoint
    from adsum.balance.slow_start import SlowStart as SlowStart
    from adsum.client.calls.call import Call as Call
    from adsum.client.calls.call import Try as Try
    from adsum.client.calls.channel import Channel as Channel
    from adsum.client.calls.failures import CallFailed as CallFailed
    from adsum.client.calls.failures import FailureKind as FailureKind
    from adsum.client.calls.options import CallOptions as CallOptions
    from adsum.client.calls.options import ChannelOptions as ChannelOptions
    from adsum.client.calls.pick import Pick as Pick
    from adsum.client.client import Client as Client
    from adsum.client.errors import NotAllowed as NotAllowed
    from adsum.client.errors import NotAuthenticated as NotAuthenticated
    from adsum.client.errors import RegistryRefused as RegistryRefused
    from adsum.client.errors import RegistryUnavailable as RegistryUnavailable
    from adsum.client.registration.registrar import Registrar as Registrar
    from adsum.client.registration.registrar_state import DrainResult as DrainResult
    from adsum.client.sync import SyncChannel as SyncChannel
    from adsum.client.sync import SyncClient as SyncClient
    from adsum.client.sync import SyncRegistrar as SyncRegistrar
    from adsum.client.sync import SyncResolver as SyncResolver
    from adsum.client.views.resolver import Resolver as Resolver
    from adsum.client.views.view import View as View
    from adsum.core.errors import AdsumError as AdsumError
    from adsum.core.errors import Invalid as Invalid
    from adsum.core.errors import LeaseLost as LeaseLost
    from adsum.core.errors import UnknownInstance as UnknownInstance
    from adsum.core.model import Check as Check
    from adsum.core.model import CheckKind as CheckKind
    from adsum.core.model import Endpoint as Endpoint
    from adsum.core.model import Instance as Instance
    from adsum.core.model import Status as Status

_EXPORTS: Final = {
    "adsum.balance.ejection": ("OutlierOptions",),
    "adsum.balance.picker": ("NoEndpoint",),
    "adsum.balance.slow_start": ("SlowStart",),
    "adsum.client.calls.call": ("Call", "Try"),
    "adsum.client.calls.channel": ("Channel",),
    "adsum.client.calls.failures": ("CallFailed", "FailureKind"),
    "adsum.client.calls.options": ("CallOptions", "ChannelOptions"),
    "adsum.client.calls.pick": ("Pick",),
    "adsum.client.client": ("Client",),
    "adsum.client.errors": ("NotAllowed", "NotAuthenticated", "RegistryRefused", "RegistryUnavailable"),
    "adsum.client.registration.registrar": ("Registrar",),
    "adsum.client.registration.registrar_state": ("DrainResult",),
    "adsum.client.sync": ("SyncChannel", "SyncClient", "SyncRegistrar", "SyncResolver"),
    "adsum.client.views.resolver": ("Resolver",),
    "adsum.client.views.view": ("View",),
    "adsum.core.errors": ("AdsumError", "Invalid", "LeaseLost", "UnknownInstance"),
    "adsum.core.model": ("Check", "CheckKind", "Endpoint", "Instance", "Status"),
}
_MODULE_OF: Final = {name: module for module, names in _EXPORTS.items() for name in names}


if not TYPE_CHECKING:  # A type checker reads the imports above, and so reports names that do not exist.

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'adsum' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
