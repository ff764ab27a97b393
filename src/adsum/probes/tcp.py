"""The TCP probe: checks that a port accepts connections."""

from __future__ import annotations

import asyncio

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.probes.connection import ProbeTarget, dial, probe_outcome, probe_target


class TcpProbe:
    """Implements `ports.Probe`: connects, sends nothing, and closes the connection."""

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._address_policy = address_policy

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """Implements `ports.Probe`."""
        target = probe_target(instance, check)._replace(tls=False)
        return await probe_outcome(check, lambda: self._verdict(target))

    async def close(self) -> None:
        """Does nothing: no connection outlives its probe."""

    async def _verdict(self, target: ProbeTarget) -> tuple[Result, str]:
        transport, _ = await dial(target, self._address_policy, asyncio.Protocol)
        transport.abort()
        return Result.PASS, f"{target.authority} accepts connections"
