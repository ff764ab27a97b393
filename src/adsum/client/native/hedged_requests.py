"""Asks the nodes of a registry so that one that hangs delays nobody: the next is asked soon, and the first counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from adsum.client.errors import NodeDeclined, NodeUnreachable, ProtocolViolation, RegistryUnavailable
from adsum.client.native.nodes import RegistryNodes
from adsum.core.validation import without_credentials
from adsum.ports import Clock

HEDGE_DELAY: Final = 0.5
"""Seconds without a byte from a node after which the next node is asked, too."""

T = TypeVar("T")
OnProgress = Callable[[], None]
"""Called whenever bytes came: the silence begins anew."""
NodeRequest = Callable[[str, OnProgress], Coroutine[Any, Any, T]]
"""Asks one node. Raises `Unreachable` or `ProtocolViolation` if another node may do better; any other error is an answer."""


async def first_answer(
    nodes: RegistryNodes,
    request: NodeRequest[T],
    clock: Clock,
    *,
    hedge_delay: float | None = HEDGE_DELAY,
    discard: Callable[[T], Awaitable[None]] | None = None,
) -> T:
    """The answer of the node that answers first.

    The next node is asked when one failed, or was silent for `silence` seconds (None: only when it failed, for what
    must not be done twice). The others are cancelled then, and those that were silent for so long count as hung.
    `discard` closes an answer that came too late to be used. Raises `RegistryUnavailable` if no node answers.
    """
    waiting, attempts, troubles = nodes.order(clock.now()), list[_Attempt[T]](), list[str]()
    declined = False
    try:
        while waiting or attempts:
            if waiting and (not attempts or attempts[-1].silent(hedge_delay)):
                attempts.append(_Attempt(waiting.pop(0), request, clock))
            await _until_any(attempts, attempts[-1].due(hedge_delay) if waiting else None, clock)
            for attempt in [each for each in attempts if each.task.done()]:
                error = attempt.task.exception()
                attempts.remove(attempt)
                if not isinstance(error, (NodeUnreachable, ProtocolViolation)):
                    nodes.mark_answered(attempt.node)
                    _note_hung(nodes, attempts, hedge_delay, clock)
                    return attempt.task.result()
                declined = declined or isinstance(error, NodeDeclined)
                troubles.append(f"{without_credentials(attempt.node)}: {error}")
                if attempt.silent(hedge_delay):
                    nodes.mark_hung(attempt.node, clock.now())
                else:
                    nodes.mark_failed(attempt.node)
        raise RegistryUnavailable("; ".join(troubles), declined=declined)
    finally:
        await _end(attempts, discard)


class _Attempt(Generic[T]):
    """One node that is being asked."""

    def __init__(self, node: str, ask: NodeRequest[T], clock: Clock) -> None:
        self.node = node
        self._clock = clock
        self._heard_at = clock.now()
        self.task = asyncio.create_task(ask(node, self._heard), name=f"adsum-ask-{without_credentials(node)}")

    def _heard(self) -> None:
        self._heard_at = self._clock.now()

    def due(self, silence: float | None) -> float | None:
        """The instant at which its silence is too long; None: never."""
        return None if silence is None else self._heard_at + silence

    def silent(self, silence: float | None) -> bool:
        """Whether its silence is too long by now."""
        due = self.due(silence)
        return due is not None and self._clock.now() >= due


async def _until_any(attempts: Sequence[_Attempt[T]], due: float | None, clock: Clock) -> None:
    """Return when an attempt has ended, at latest at the instant `due`."""
    tasks: list[asyncio.Future[Any]] = [attempt.task for attempt in attempts]
    timer = None if due is None else asyncio.ensure_future(clock.sleep(due - clock.now()))
    try:
        await asyncio.wait(tasks if timer is None else [*tasks, timer], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if timer is not None:
            timer.cancel()


def _note_hung(nodes: RegistryNodes, others: Sequence[_Attempt[T]], silence: float | None, clock: Clock) -> None:
    for other in others:
        if other.silent(silence) and not other.task.done():
            nodes.mark_hung(other.node, clock.now())


async def _end(attempts: Sequence[_Attempt[T]], discard: Callable[[T], Awaitable[None]] | None) -> None:
    """Cancel those that are still asked, and close what they answered meanwhile."""
    for attempt in attempts:
        attempt.task.cancel()
    ended = await asyncio.gather(*(attempt.task for attempt in attempts), return_exceptions=True)
    for late in ended:
        if discard is not None and not isinstance(late, BaseException):
            await discard(late)
