"""Whether somebody answers at the place of an instance whose id another process wants: one probe, at once."""

from __future__ import annotations

import asyncio
from typing import Final

from adsum.core.errors import Overloaded, ProbeUnavailable
from adsum.core.identity import ProcessIdentity
from adsum.core.model import Check, CheckKind, Listing, Result
from adsum.ports import Probe

PLACE_CONNECT_TIMEOUT: Final = 1.0
"""Seconds that the place has to take a connection; then nobody lives there."""
MAX_CONCURRENT_PLACE_PROBES: Final = 64
"""How many places are probed at once; past it who asks for an id is told to come again."""

_CONNECT: Final = Check("takeover", CheckKind.TCP, timeout=PLACE_CONNECT_TIMEOUT)


class PlaceProber:
    """Probes places. Those who ask for the same one at the same time share a probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._running: dict[ProcessIdentity, asyncio.Task[bool]] = {}

    async def is_reachable(self, listing: Listing) -> bool:
        """Whether the place takes a connection. A probe that can't be run proves nothing, so it counts as an answer.

        Raises `Overloaded`.
        """
        process = listing.registration.identity
        task = self._running.get(process)
        if task is None:
            if len(self._running) >= MAX_CONCURRENT_PLACE_PROBES:
                raise Overloaded("the queue of places that are asked who lives there")
            task = asyncio.create_task(self._ask(listing), name=f"adsum-answers-{listing.key}")
            self._running[process] = task
            task.add_done_callback(lambda _: self._running.pop(process, None))
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Give up the probes that run."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, listing: Listing) -> bool:
        try:
            outcome = await self._probe.probe(listing.instance, _CONNECT)
        except ProbeUnavailable:
            return True
        return outcome.result is not Result.FAIL
