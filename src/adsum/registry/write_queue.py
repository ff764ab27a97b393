"""The queue of decisions that wait to be committed, and the answers to those that were."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from adsum.core.catalog.decisions import Decision
from adsum.core.catalog.declarations import Declaration
from adsum.core.errors import AdsumError, Overloaded

MAX_WAITING_WRITES: Final = 20_000
"""Writes that wait for the store. Past it a new one is refused with `Overloaded`."""
MAX_ANSWERS_PER_TURN: Final = 250
"""Writes that are answered before other tasks run: an answer is sent at once, which takes a system call."""

Settle = Callable[[int | AdsumError], None]
"""Takes the revision at which the snapshot contains a write, or the error of the write. Returns at once."""

_log = logging.getLogger("adsum.registry")


class QueuedWrite:
    """A waiting decision, and the function that takes its result."""

    __slots__ = ("decision", "error", "is_abandoned", "settle")

    def __init__(
        self, decision: Decision | Declaration, settle: Settle, is_abandoned: Callable[[], bool] | None
    ) -> None:
        """`is_abandoned` returns whether nobody waits for the result any more. Then the write is not decided."""
        self.decision = decision
        self.settle = settle
        self.is_abandoned = is_abandoned
        self.error: AdsumError | None = None
        """The error that the decision raised."""


class WriteQueue:
    """The writes that wait to be committed, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedWrite] = deque()
        self._has_writes = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, write: QueuedWrite) -> None:
        """Adds a write. Raises `Overloaded` if too many wait."""
        if len(self._waiting) >= MAX_WAITING_WRITES:
            raise Overloaded("the queue of writes")
        self._waiting.append(write)
        self._has_writes.set()

    async def wait(self) -> None:
        """Returns when a write waits."""
        await self._has_writes.wait()

    def take(self, limit: int) -> list[QueuedWrite]:
        """Removes the oldest writes, at most `limit`, and returns them."""
        if limit >= len(self._waiting):
            writes = [*self._waiting]
            self._waiting.clear()
            self._has_writes.clear()
            return writes
        return [self._waiting.popleft() for _ in range(limit)]

    def refuse_all(self, error: AdsumError) -> None:
        """Answers all waiting writes with an error."""
        refuse(self.take(len(self._waiting)), error)


def settle(writes: Sequence[QueuedWrite], revision: int) -> None:
    """Answers committed writes: each with the error of its decision, or with the revision.

    It answers the first ones now, and the others after other tasks have run.
    """
    for write in islice(writes, MAX_ANSWERS_PER_TURN):
        _answer(write, write.error or revision)
    if len(writes) > MAX_ANSWERS_PER_TURN:
        asyncio.get_running_loop().call_soon(settle, writes[MAX_ANSWERS_PER_TURN:], revision)


def refuse(writes: Sequence[QueuedWrite], error: AdsumError) -> None:
    """Answers all these writes with an error."""
    for write in writes:
        _answer(write, error)


def _answer(write: QueuedWrite, result: int | AdsumError) -> None:
    try:
        write.settle(result)
    except Exception:
        # The other writes of the batch must get their answers.
        _log.exception("the answer to a write could not be sent")
