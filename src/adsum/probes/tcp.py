"""The TCP probe: does the port accept connections?"""

from __future__ import annotations

import asyncio

from adsum.core.address_policy import Fence
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.probes.connection import Place, dial, judged, place


class TcpProbe:
    """Implements `ports.Probe`: connects, says nothing, and hangs up."""

    def __init__(self, fence: Fence, *, excerpts: bool = False) -> None:
        self._fence = fence

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """See `ports.Probe`."""
        where = place(instance, check)._replace(tls=False)
        return await judged(check, lambda: self._verdict(where))

    async def close(self) -> None:
        """Nothing is kept between probes."""

    async def _verdict(self, where: Place) -> tuple[Result, str]:
        transport, _ = await dial(where, self._fence, asyncio.Protocol)
        transport.abort()
        return Result.PASS, f"{where.authority} accepts connections"
