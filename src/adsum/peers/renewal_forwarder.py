"""Renewals on their way to another node. Programs renew one by one; what comes at about one time is one request."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.core.errors import AdsumError

BATCH_DELAY: Final = 0.05
"""Seconds for which renewals are gathered before they are sent."""
RENEWAL_ANSWER_TIMEOUT: Final = 0.4
"""Seconds that the node has to say what became of one; then who asked is told to ask another node."""
RENEWAL_REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a request may take nevertheless: a node that is late may still hear of it in time."""
MAX_CONCURRENT_RENEWAL_REQUESTS: Final = 4
"""Requests under way to one node; with so many the next one waits."""
MAX_WAITING_LEASES: Final = 100_000
"""Leases that wait to be sent to one node; past it none are taken."""

SendRenewals = Callable[[Sequence[wire.LeaseBody]], Awaitable[wire.RenewalResult]]

_log = logging.getLogger("adsum.peers")


@dataclass(frozen=True, slots=True)
class RenewalAnswer:
    """What a node said of leases: those that are lost; of services that it does not keep it renewed nothing."""

    lost: Sequence[wire.LostLease]
    not_kept: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Entry:
    """What somebody asked to be renewed, and where to tell what became of it; None: nobody knows."""

    leases: Sequence[wire.LeaseBody]
    told: asyncio.Future[RenewalAnswer | None]


class RenewalForwarder:
    """To one node, over `send`."""

    def __init__(self, node: str, send: SendRenewals) -> None:
        self._node = node
        self._send = send
        self._waiting: deque[_Entry] = deque()
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._failing = False

    async def renew(self, leases: Sequence[wire.LeaseBody]) -> RenewalAnswer | None:
        """What the node says of them; None if it has not said so within `RENEWAL_ANSWER_TIMEOUT`."""
        if self._count + len(leases) > MAX_WAITING_LEASES:
            return None
        entry = _Entry(leases, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._count += len(leases)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="adsum-pass-on")
        await asyncio.wait([entry.told], timeout=RENEWAL_ANSWER_TIMEOUT)
        return entry.told.result() if entry.told.done() else None

    async def close(self) -> None:
        """Idempotent."""
        tasks = [*self._sending, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(BATCH_DELAY)
            while len(self._sending) >= MAX_CONCURRENT_RENEWAL_REQUESTS:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            sending = asyncio.create_task(self._ask(self._take()), name="adsum-pass-on")
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    def _take(self) -> list[_Entry]:
        """As much as fits into one request; no instance twice, since an answer names it without its holder."""
        taken, keys = list[_Entry](), set[tuple[str, str]]()
        while self._waiting:
            its = {(lease.service, lease.id) for lease in self._waiting[0].leases}
            if taken and (len(keys) + len(its) > wire.MAX_RENEWALS or keys & its):
                break
            keys |= its
            taken.append(self._waiting.popleft())
            self._count -= len(taken[-1].leases)
        return taken

    async def _ask(self, entries: Sequence[_Entry]) -> None:
        renewed: wire.RenewalResult | None = None
        try:
            async with asyncio.timeout(RENEWAL_REQUEST_TIMEOUT):
                renewed = await self._send([lease for entry in entries for lease in entry.leases])
            self._note("")
        except AdsumError as error:
            self._note(str(error))
        except TimeoutError:
            self._note(f"no answer within {RENEWAL_REQUEST_TIMEOUT:g} s")
        finally:
            heard = [None] * len(entries) if renewed is None else _told(entries, renewed)
            for entry, its in zip(entries, heard, strict=True):
                if not entry.told.done():
                    entry.told.set_result(its)

    def _note(self, trouble: str) -> None:
        """Tell the operator when the node does not take what is passed on to it, and when it does again."""
        if trouble and not self._failing:
            _log.warning("renewals can't be passed on to %s, and are refused: %s", self._node, trouble)
        elif self._failing and not trouble:
            _log.info("renewals are passed on to %s again", self._node)
        self._failing = bool(trouble)


def _told(entries: Sequence[_Entry], renewed: wire.RenewalResult) -> list[RenewalAnswer | None]:
    """To each what concerns it."""
    lost = {(each.service, each.id): each for each in renewed.lost}
    not_kept = frozenset(renewed.not_kept)
    keys = (dict.fromkeys((lease.service, lease.id) for lease in entry.leases) for entry in entries)
    return [RenewalAnswer([lost[key] for key in its if key in lost], not_kept) for its in keys]
