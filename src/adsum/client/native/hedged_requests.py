"""Hedged requests: when a registry node is silent, the next node is tried too, and the first answer counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from adsum.client.errors import NodeDeclined, NodeNotTrusted, NodeUnreachable, ProtocolViolation, RegistryUnavailable
from adsum.client.native.nodes import RegistryNodes
from adsum.core.validation import without_credentials
from adsum.ports import Clock

HEDGE_DELAY: Final = 0.5
"""Seconds without a byte from a node after which the next node is tried too."""

T = TypeVar("T")
OnProgress = Callable[[], None]
"""Called whenever bytes arrive: the node is not silent, and the hedge delay starts again."""
NodeRequest = Callable[[str, OnProgress], Coroutine[Any, Any, T]]
"""A request to one node. Raises `NodeUnreachable` or `ProtocolViolation` if another node may serve it; any other error
counts as an answer."""


async def first_answer(
    nodes: RegistryNodes,
    request: NodeRequest[T],
    clock: Clock,
    *,
    hedge_delay: float | None = HEDGE_DELAY,
    discard: Callable[[T], Awaitable[None]] | None = None,
) -> T:
    """Returns the answer of the node that answers first.

    The next node is tried when a node failed or was silent for `hedge_delay` seconds (None: only when it failed, for
    requests that must not arrive twice). When a node has answered, the other requests are cancelled, and nodes that
    were silent for `hedge_delay` count as hung. `discard` closes an answer that came too late to be used. Raises
    `RegistryUnavailable` if no node answers.
    """
    nodes_left, attempts, problems = nodes.order(clock.now()), list[_Attempt[T]](), list[str]()
    declined = untrusted = False
    try:
        while nodes_left or attempts:
            if nodes_left and (not attempts or attempts[-1].is_silent(hedge_delay)):
                attempts.append(_Attempt(nodes_left.pop(0), request, clock))
            await _wait_for_any(attempts, attempts[-1].silent_at(hedge_delay) if nodes_left else None, clock)
            for attempt in [attempt for attempt in attempts if attempt.task.done()]:
                error = attempt.task.exception()
                attempts.remove(attempt)
                if not isinstance(error, (NodeUnreachable, ProtocolViolation)):
                    nodes.mark_answered(attempt.node)
                    _mark_hung(nodes, attempts, hedge_delay, clock)
                    return attempt.task.result()
                declined = declined or isinstance(error, NodeDeclined)
                untrusted = untrusted or isinstance(error, NodeNotTrusted)
                problems.append(f"{without_credentials(attempt.node)}: {error}")
                if attempt.is_silent(hedge_delay):
                    nodes.mark_hung(attempt.node, clock.now())
                else:
                    nodes.mark_failed(attempt.node)
        raise RegistryUnavailable("; ".join(problems), declined=declined, untrusted=untrusted)
    finally:
        await _end(attempts, discard)


class _Attempt(Generic[T]):
    """A request to one node that is under way."""

    def __init__(self, node: str, request: NodeRequest[T], clock: Clock) -> None:
        self.node = node
        self._clock = clock
        self._progress_at = clock.now()
        self.task = asyncio.create_task(
            request(node, self._note_progress), name=f"adsum-ask-{without_credentials(node)}"
        )

    def _note_progress(self) -> None:
        self._progress_at = self._clock.now()

    def silent_at(self, hedge_delay: float | None) -> float | None:
        """Returns the time at which the node counts as silent unless bytes arrive; None: never."""
        return None if hedge_delay is None else self._progress_at + hedge_delay

    def is_silent(self, hedge_delay: float | None) -> bool:
        """Returns whether the node has been silent for the hedge delay."""
        silent_at = self.silent_at(hedge_delay)
        return silent_at is not None and self._clock.now() >= silent_at


async def _wait_for_any(attempts: Sequence[_Attempt[T]], deadline: float | None, clock: Clock) -> None:
    """Waits until an attempt has ended, at the latest until `deadline`."""
    tasks: list[asyncio.Future[Any]] = [attempt.task for attempt in attempts]
    timer = None if deadline is None else asyncio.ensure_future(clock.sleep(deadline - clock.now()))
    try:
        await asyncio.wait(tasks if timer is None else [*tasks, timer], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if timer is not None:
            timer.cancel()


def _mark_hung(nodes: RegistryNodes, others: Sequence[_Attempt[T]], hedge_delay: float | None, clock: Clock) -> None:
    for other in others:
        if other.is_silent(hedge_delay) and not other.task.done():
            nodes.mark_hung(other.node, clock.now())


async def _end(attempts: Sequence[_Attempt[T]], discard: Callable[[T], Awaitable[None]] | None) -> None:
    """Cancels the attempts that are under way, and closes the answers that arrived meanwhile."""
    for attempt in attempts:
        attempt.task.cancel()
    results = await asyncio.gather(*(attempt.task for attempt in attempts), return_exceptions=True)
    for result in results:
        if discard is not None and not isinstance(result, BaseException):
            await discard(result)
