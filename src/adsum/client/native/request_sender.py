"""Sends requests of the native HTTP API to whichever registry node answers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from adsum import wire
from adsum.client.errors import NodeDeclined, NodeUnreachable, ProtocolViolation, RegistryRefused
from adsum.client.native.hedged_requests import HEDGE_DELAY, OnProgress, first_answer
from adsum.client.native.nodes import RegistryNodes
from adsum.client.native.transport import QueryParams, Transport, TransportReply
from adsum.client.native.waiting_request import WaitingRequest
from adsum.clock import SystemClock
from adsum.core.errors import AdsumError, Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.ports import Clock

REQUEST_TIMEOUT: Final = 5.0
"""Seconds that one node has to answer a request; after that the request fails at this node."""
WAIT_ANSWER_MARGIN: Final = 2.0
"""Seconds by which the answer to a waiting request may come later than its wait, since the node writes first; after
that the request raises `AnswerOverdue`."""
API_PATH: Final = "/api/v1"

_NODE_FAILURES: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that concern the node and not the request: another node may serve it."""

T = TypeVar("T")


class RequestSender:
    """Sends requests to the nodes of one registry and decodes the answers."""

    def __init__(self, urls: Sequence[str], *, actor: str = "", clock: Clock | None = None, rng: Random) -> None:
        """`actor` is recorded as the author of writes; without one the registry records the caller's address."""
        self.nodes = RegistryNodes(urls, rng)
        self._clock = clock or SystemClock()
        uses_tls = any(url.startswith("https:") for url in urls)
        self.transport = Transport(ssl.create_default_context() if uses_tls else None)
        self.headers: dict[str, str] = {wire.ACTOR_HEADER: actor} if actor else {}

    async def close(self) -> None:
        """Closes every connection. Idempotent."""
        await self.transport.close()

    async def find_responsive_node(self, timeout: float = REQUEST_TIMEOUT) -> str:
        """Returns the URL of a node that answers within `timeout` seconds; requests go to that node first from now on.

        Raises `RegistryUnavailable`.
        """

        async def request(node: str, on_progress: OnProgress) -> str:  # noqa: ARG001 - the answer is one piece
            await self.send_to(node, "GET", "/healthz", timeout=timeout, fresh=True)
            return node

        return await first_answer(self.nodes, request, self._clock)

    async def send(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: wire.RequestBody | None = None,
        params: QueryParams = (),
        instance: tuple[str, str] = ("", ""),
        timeout: float = REQUEST_TIMEOUT,
        hedge_delay: float | None = HEDGE_DELAY,
        fresh: bool = False,
    ) -> T:
        """Sends a request and returns its answer, decoded as `kind`.

        `path` is below `API_PATH`. `instance` is the service and id that the request is about, for errors.
        `hedge_delay`: seconds of silence after which the next node is tried too; None for a request that must not
        arrive twice, which goes to a node that has just answered. `fresh`: over a new connection. Raises
        `RegistryUnavailable`, or the error that the answer states.
        """
        encoded = wire.encode(body) if body is not None else None

        async def request(node: str, on_progress: OnProgress) -> T:  # noqa: ARG001 - the answer is one piece
            return await self._request(node, method, path, kind, encoded, params, instance, timeout, fresh)

        if hedge_delay is None and len(self.nodes) > 1:
            await self.find_responsive_node()
        return await first_answer(self.nodes, request, self._clock, hedge_delay=hedge_delay)

    async def send_waiting(
        self,
        method: str,
        path: str,
        kind: type[T],
        encode: Callable[[float], tuple[bytes | None, QueryParams]],
        wait: float,
        *,
        instance: tuple[str, str] = ("", ""),
        fresh: bool = False,
    ) -> T:
        """Sends a request that waits at the registry for up to `wait` seconds.

        `encode` returns the body and the parameters for the seconds that are left. Raises what `WaitingRequest.run`
        raises.
        """
        margin = WAIT_ANSWER_MARGIN if wait else REQUEST_TIMEOUT

        async def request(node: str, seconds_left: float) -> T:
            body, params = encode(seconds_left)
            return await self._request(node, method, path, kind, body, params, instance, seconds_left + margin, fresh)

        async def find_node(seconds_left: float) -> str:
            return await self.find_responsive_node(min(REQUEST_TIMEOUT, seconds_left + margin))

        return await WaitingRequest(self.nodes, self._clock, wait).run(request, find_node)

    async def send_to(
        self,
        node: str,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: QueryParams = (),
        timeout: float,
        fresh: bool,
    ) -> TransportReply:
        """Sends a request to one node, once; `path` is the whole path. Raises `NodeUnreachable`."""
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self.transport.request(
            method, node + path, body=body, params=params, headers=headers, timeout=timeout, fresh=fresh
        )

    async def _request(
        self,
        node: str,
        method: str,
        path: str,
        kind: type[T],
        body: bytes | None,
        params: QueryParams,
        instance: tuple[str, str],
        timeout: float,
        fresh: bool,
    ) -> T:
        """Sends a request to one node and returns its answer, decoded as `kind`.

        Raises `NodeUnreachable` and `ProtocolViolation` if another node may serve the request, or the error that the
        answer states.
        """
        reply = await self.send_to(
            node, method, API_PATH + path, body=body, params=params, timeout=timeout, fresh=fresh
        )
        must_not_decline(reply)
        return _decode(reply, kind, instance)


def must_not_decline(reply: TransportReply) -> None:
    """Raises `NodeDeclined` if the node can't serve the request now, `NodeUnreachable` if it only ended the wait."""
    if reply.status in _NODE_FAILURES:
        problem = _problem(reply)
        # A problem of the field `wait` means that everything but the waiting was done.
        raise NodeUnreachable(problem.detail) if problem.field == "wait" else NodeDeclined(problem.detail)


def _decode(reply: TransportReply, kind: type[T], instance: tuple[str, str]) -> T:
    if reply.status >= 300:
        raise _refusal(reply, instance)
    try:
        return wire.decode(reply.body, kind)
    except Invalid as error:
        raise ProtocolViolation(f"the answer can't be decoded: {error}") from None


def _refusal(reply: TransportReply, instance: tuple[str, str]) -> AdsumError:
    """Returns the error that an answer states."""
    problem = _problem(reply)
    if any(instance) and reply.status == 404:
        return UnknownInstance(*instance)
    if any(instance) and reply.status == 409:
        return LeaseLost(*instance)
    if reply.status == 409:
        return RegistrationConflict(problem.detail)
    if problem.field:
        return Invalid(problem.field, problem.detail.removeprefix(f"{problem.field}: "))
    return RegistryRefused(reply.status, problem.detail)


def _problem(reply: TransportReply) -> wire.Problem:
    try:
        return wire.decode(reply.body, wire.Problem)
    except Invalid:
        return wire.Problem("", reply.status, f"it answered with status {reply.status}")
