"""Probes of the place of an instance whose id another process requests."""

from __future__ import annotations

import asyncio
from typing import Final

from adsum.core.errors import Overloaded, ProbeUnavailable
from adsum.core.identity import ProcessIdentity
from adsum.core.model import Check, CheckKind, Listing, Result
from adsum.ports import Probe

PLACE_CONNECT_TIMEOUT: Final = 1.0
"""Seconds that the place has to accept a connection. Then the process counts as dead."""
MAX_CONCURRENT_PLACE_PROBES: Final = 64
"""Places that are probed at the same time. Past it the registration is refused with `Overloaded`."""

_CONNECT: Final = Check("takeover", CheckKind.TCP, timeout=PLACE_CONNECT_TIMEOUT)


class PlaceProber:
    """Probes places. Concurrent requests for one place share a probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._running: dict[ProcessIdentity, asyncio.Task[bool]] = {}

    async def is_reachable(self, listing: Listing) -> bool:
        """Returns whether the place accepts a connection. Raises `Overloaded`.

        A probe that can't be run proves nothing, so the place counts as reachable.
        """
        process = listing.registration.identity
        task = self._running.get(process)
        if task is None:
            if len(self._running) >= MAX_CONCURRENT_PLACE_PROBES:
                raise Overloaded("the queue of places to probe")
            task = asyncio.create_task(self._probe_place(listing), name=f"adsum-probe-place-{listing.key}")
            self._running[process] = task
            task.add_done_callback(lambda _: self._running.pop(process, None))
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Cancels the running probes."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe_place(self, listing: Listing) -> bool:
        try:
            outcome = await self._probe.probe(listing.instance, _CONNECT)
        except ProbeUnavailable:
            return True
        return outcome.result is not Result.FAIL
