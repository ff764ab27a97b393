"""A request that waits at the registry. When the node that holds it is lost, the request goes on at another node.

A node is lost when it stops, is killed, or its connection breaks. If no other node is up, the request goes on once a
node is back.
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
"""Seconds between two rounds of attempts after a node that had taken the request was lost."""

T = TypeVar("T")


class WaitingRequest:
    """A request that lasts for `wait` seconds at most, and a margin for the answer to arrive."""

    def __init__(self, nodes: RegistryNodes, clock: Clock, wait: float) -> None:
        self._nodes = nodes
        self._clock = clock
        self._wait = wait
        self._deadline = clock.now() + wait
        self._loss = ""
        """The loss of the first node that had taken the request, as a clause; "" if none was lost."""
        self._latest: RegistryUnavailable | None = None
        """The error of the latest round of attempts."""
        self._all_declined = True
        """True if every node that received the request declined it."""

    async def run(
        self, request: Callable[[str, float], Awaitable[T]], find_node: Callable[[float], Awaitable[str]]
    ) -> T:
        """Returns the answer of the node that waits to the end.

        `request(node, seconds)` makes one node wait for that long; it must do no harm when it arrives again.
        `find_node(seconds)` finds a node that answers within that time. Raises `RegistryUnavailable` if no node took
        the request, or if all that received it declined it to the end; `AnswerOverdue` if a node took it and stayed
        silent; `AnswerLost` if that node was lost and no node has answered since; `InstanceForgotten` if the instance
        is unknown since then.
        """
        while True:
            self._check_deadline()
            try:
                if len(self._nodes) > 1:
                    await find_node(self._seconds_left)
                return await first_answer(
                    self._nodes, lambda node, _: self._attempt(node, request), self._clock, hedge_delay=None
                )
            except RegistryUnavailable as error:
                if not (self._wait and self._loss):
                    raise
                self._latest = error
            except UnknownInstance as error:
                if self._loss:
                    raise InstanceForgotten(error.service, error.id) from None
                raise
            await self._clock.sleep(min(ROUND_PAUSE, self._seconds_left))

    @property
    def _seconds_left(self) -> float:
        return max(0.0, self._deadline - self._clock.now())

    def _check_deadline(self) -> None:
        """Raises the error that fits if the wait is over."""
        if not self._wait or self._seconds_left:
            return
        if self._latest is not None and self._latest.declined and self._all_declined:
            raise self._latest
        if self._loss:
            raise AnswerLost(self._wait, self._loss, self._latest.reason if self._latest is not None else "")
        raise AnswerOverdue(self._wait)

    async def _attempt(self, node: str, request: Callable[[str, float], Awaitable[T]]) -> T:
        self._check_deadline()
        seconds_left = min(self._wait, ceil(self._seconds_left * 100) / 100)  # Rounded, since the node logs it.
        try:
            return await request(node, seconds_left)
        except NodeUnreachable as error:
            if self._wait and not self._seconds_left:
                raise AnswerOverdue(self._wait) from None
            if not isinstance(error, NodeNotConnected):
                self._loss = self._loss or f"{without_credentials(node)}: {error}"
                self._all_declined = self._all_declined and isinstance(error, NodeDeclined)
            raise
