"""A call that waits at the registry. When the node that waits for it is lost (it stops, is killed, or its connection
breaks), the call goes on at the next node, or once a node is back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import ceil
from typing import Final, TypeVar

from adsum.client.errors import (
    AnswerLost,
    AnswerOverdue,
    InstanceForgotten,
    NodeDeclined,
    NodeNotConnected,
    NodeUnreachable,
    RegistryUnavailable,
)
from adsum.client.native.hedged_requests import first_answer
from adsum.client.native.nodes import RegistryNodes
from adsum.core.errors import UnknownInstance
from adsum.core.validation import without_credentials
from adsum.ports import Clock

ROUND_PAUSE: Final = 0.5
"""Seconds between two rounds of questions, once a node that had taken the request was lost."""

T = TypeVar("T")


class WaitingRequest:
    """One such call: it lasts for `wait` seconds at most, and a little longer for the answer to come."""

    def __init__(self, nodes: RegistryNodes, clock: Clock, wait: float) -> None:
        self._nodes = nodes
        self._clock = clock
        self._length = wait
        self._ends = clock.now() + wait
        self._lost = ""
        """How the first node was lost that had taken the request, in a clause; "" if none was."""
        self._latest: RegistryUnavailable | None = None
        """What came of the latest round."""
        self._refused = True
        """Whether every node that heard of the request answered that it can't do it now."""

    async def run(
        self, request: Callable[[str, float], Awaitable[T]], find_node: Callable[[float], Awaitable[str]]
    ) -> T:
        """The answer of the node that waits to the end. `ask` has one node wait for so many seconds; `find_node` finds a
        node that answers within so many seconds.

        The request must be harmless when it arrives again. Raises `RegistryUnavailable` if no node took it, or if all
        that heard of it refused it to the end; `AnswerOverdue` if one took it and is silent; `AnswerLost` if that one
        was lost and no node has answered since; `InstanceForgotten` if the instance is unknown since then.
        """
        while True:
            self._must_have_time()
            try:
                if len(self._nodes) > 1:
                    await find_node(self._left)
                return await first_answer(
                    self._nodes, lambda node, _: self._attempt(node, request), self._clock, hedge_delay=None
                )
            except RegistryUnavailable as error:
                if not (self._length and self._lost):
                    raise
                self._latest = error
            except UnknownInstance as error:
                if self._lost:
                    raise InstanceForgotten(error.service, error.id) from None
                raise
            await self._clock.sleep(min(ROUND_PAUSE, self._left))

    @property
    def _left(self) -> float:
        return max(0.0, self._ends - self._clock.now())

    def _must_have_time(self) -> None:
        """Raises what is known if the wait is over."""
        if not self._length or self._left:
            return
        if self._latest is not None and self._latest.declined and self._refused:
            raise self._latest
        if self._lost:
            raise AnswerLost(self._length, self._lost, self._latest.reason if self._latest is not None else "")
        raise AnswerOverdue(self._length)

    async def _attempt(self, node: str, ask: Callable[[str, float], Awaitable[T]]) -> T:
        self._must_have_time()
        left = min(self._length, ceil(self._left * 100) / 100)  # People read it in the node's log.
        try:
            return await ask(node, left)
        except NodeUnreachable as error:
            if self._length and not self._left:
                raise AnswerOverdue(self._length) from None
            if not isinstance(error, NodeNotConnected):
                self._lost = self._lost or f"{without_credentials(node)}: {error}"
                self._refused = self._refused and isinstance(error, NodeDeclined)
            raise
