"""The probes by kind of check.

To add a kind, add its file and one line to `PROBES`; it must pass the contract suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, cast

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import Check, CheckKind, Instance, Outcome
from adsum.ports import Probe

PROBES: Final[Mapping[CheckKind, str]] = MappingProxyType(
    {
        CheckKind.HTTP: "adsum.probes.http:HttpProbe",
        CheckKind.TCP: "adsum.probes.tcp:TcpProbe",
        CheckKind.GRPC: "adsum.probes.grpc:GrpcProbe",
    }
)
"""Kind of check → import path of the probe class. A class is imported when its kind is first probed."""


def load_probe(kind: CheckKind, address_policy: AddressPolicy, *, excerpts: bool = False) -> Probe:
    """Returns the probe of a kind. It connects only to addresses that `address_policy` allows.

    `excerpts`: its notes may quote what instances answer.
    """
    module, _, class_name = PROBES[kind].partition(":")
    return cast("Probe", getattr(import_module(module), class_name)(address_policy, excerpts=excerpts))


class Probes:
    """Implements `ports.Probe` for checks of every kind."""

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._address_policy = address_policy
        self._excerpts = excerpts
        self._loaded: dict[CheckKind, Probe] = {}

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """Implements `ports.Probe`."""
        probe = self._loaded.get(check.kind)
        if probe is None:
            probe = self._loaded[check.kind] = load_probe(check.kind, self._address_policy, excerpts=self._excerpts)
        return await probe.probe(instance, check)

    async def reconfigure(self, address_policy: AddressPolicy, *, excerpts: bool) -> None:
        """Uses another address policy from the next probe on."""
        self._address_policy, self._excerpts = address_policy, excerpts
        await self.close()

    async def close(self) -> None:
        """Implements `ports.Probe`."""
        loaded, self._loaded = self._loaded, {}
        for probe in loaded.values():
            await probe.close()
