"""The probes by kind of check. To add one: its file, one line here, and it passes the contract suite."""

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
"""Kind → where its probe is, imported when chosen."""


def load_probe(kind: CheckKind, address_policy: AddressPolicy, *, excerpts: bool = False) -> Probe:
    """The probe of that kind, which keeps within the fence. `excerpts`: its notes may quote what instances answer."""
    module, _, maker = PROBES[kind].partition(":")
    return cast("Probe", getattr(import_module(module), maker)(address_policy, excerpts=excerpts))


class Probes:
    """Implements `ports.Probe` for checks of every kind; a kind that nobody checks is never imported."""

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._fence = address_policy
        self._excerpts = excerpts
        self._loaded: dict[CheckKind, Probe] = {}

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """See `ports.Probe`."""
        probe = self._loaded.get(check.kind)
        if probe is None:
            probe = self._loaded[check.kind] = load_probe(check.kind, self._fence, excerpts=self._excerpts)
        return await probe.probe(instance, check)

    async def reconfigure(self, address_policy: AddressPolicy, *, excerpts: bool) -> None:
        """Probe within that fence from now on."""
        self._fence, self._excerpts = address_policy, excerpts
        await self.close()

    async def close(self) -> None:
        """See `ports.Probe`."""
        loaded, self._loaded = self._loaded, {}
        for probe in loaded.values():
            await probe.close()
