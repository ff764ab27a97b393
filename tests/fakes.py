"""The world for tests: a clock that stands still until told otherwise, and a store that fails when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from heapq import heappop, heappush
from itertools import count
from math import isfinite

from adsum.core.changes import Batch, Change, Recorded, Whole
from adsum.core.documents import Edit
from adsum.core.errors import StoreConflict, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.core.shares import Alone, Peer, shard_of


class FakeClock:
    """Implements `ports.Clock`. Sleepers wake when `advance` passes their instant, in its order."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._ahead = wall - now
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._ahead

    async def sleep(self, length: float) -> None:
        if length <= 0:
            await asyncio.sleep(0)
            return
        waiter = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._now + length, next(self._order), waiter))
        await waiter

    def jump(self, length: float) -> None:
        """Let `length` seconds pass at once, as when the process was suspended."""
        assert length >= 0
        assert isfinite(length)
        self._now += length
        self._wake()

    async def advance(self, length: float) -> None:
        """Let `length` seconds pass: wake each sleeper at its instant and let everybody run to rest before the next."""
        end = self._now + length
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now = max(self._now, self._sleepers[0][0])
            self._wake()
            await settle()
        self._now = end
        await settle()

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, waiter = heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)


async def settle(turns: int = 10_000) -> None:
    """Let every task that is ready run, and those that they make ready, until all wait (or after so many turns)."""
    ready = getattr(asyncio.get_running_loop(), "_ready")  # noqa: B009 - asyncio has no public word for "all wait"
    for _ in range(turns):
        await asyncio.sleep(0)
        if not ready:
            return


class FakeStore:
    """Implements `ports.Store` in this process; unavailable while `away` is set. May be opened again by a successor."""

    def __init__(self) -> None:
        self.away = False
        self.revision = 0
        self.changes: list[Change] = []
        self._listings: dict[Key, tuple[int, Listing]] = {}
        self._stream: asyncio.Queue[Whole | Batch] = asyncio.Queue()

    def join(self, name: str) -> Alone:
        return Alone(name)

    def condition(self) -> Mapping[str, str]:
        return {}

    async def open(self) -> None:
        self._stream = asyncio.Queue()
        self._stream.put_nowait(Whole("e1", self.revision, list(self._listings.values())))

    async def commit(self, changes: Sequence[Change], basis: int, edits: Sequence[Edit] = ()) -> int:
        await self.confirm(basis)
        self.revision += 1
        for change in changes:
            self._listings.pop(change.key, None)
            if change.listing is not None:
                self._listings[change.key] = (self.revision, change.listing)
        self.changes += changes
        self._stream.put_nowait(Batch(self.revision, changes, edits))
        return self.revision

    async def confirm(self, basis: int) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")
        if basis != self.revision:
            raise StoreConflict(f"{basis} is not {self.revision}")

    async def watch(self) -> AsyncIterator[Whole | Batch]:
        while True:
            yield await self._stream.get()

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[Recorded]:
        return []

    def age(self) -> float:
        return 0.0

    def apart(self) -> float:
        return 0.0

    async def close(self) -> None:
        pass


class FakeShares:
    """Implements `ports.Shares`: keeps the services that the test says; nobody is there to keep the others."""

    id = "n1"

    def __init__(self, *services: str) -> None:
        self.kept: Set[int] = frozenset()
        self.keep(*services)

    def keep(self, *services: str) -> None:
        self.kept = frozenset(map(shard_of, services))

    def announce(self, url: str) -> None:
        pass

    async def begin(self) -> None:
        pass

    def keepers(self, service: str) -> Sequence[Peer]:
        return ()

    def peers(self) -> Sequence[tuple[Peer, int]]:
        return ()

    def left(self) -> Sequence[tuple[Peer, float]]:
        return ()
