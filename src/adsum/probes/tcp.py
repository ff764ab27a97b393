"""The TCP probe: does the port accept connections?"""

from __future__ import annotations

import asyncio

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.probes.connection import ProbeTarget, dial, probe_outcome, probe_target


class TcpProbe:
    """Implements `ports.Probe`: connects, says nothing, and hangs up."""

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._fence = address_policy

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """See `ports.Probe`."""
        where = probe_target(instance, check)._replace(tls=False)
        return await probe_outcome(check, lambda: self._verdict(where))

    async def close(self) -> None:
        """Nothing is kept between probes."""

    async def _verdict(self, where: ProbeTarget) -> tuple[Result, str]:
        transport, _ = await dial(where, self._fence, asyncio.Protocol)
        transport.abort()
        return Result.PASS, f"{where.authority} accepts connections"
