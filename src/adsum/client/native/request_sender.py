"""Sends requests of the native HTTP API to whichever registry node answers."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Final, TypeVar

from adsum import wire
from adsum.client.credentials.client_credentials import NO_TOKEN, ClientCredentials
from adsum.client.errors import (
    AuthorityMismatch,
    NodeDeclined,
    NodeNotTrusted,
    NodeUnreachable,
    NotAllowed,
    NotAuthenticated,
    ProtocolViolation,
    RegistryRefused,
)
from adsum.client.native.hedged_requests import HEDGE_DELAY, OnProgress, first_answer
from adsum.client.native.nodes import RegistryNodes
from adsum.client.native.transport import QueryParams, Transport, TransportReply
from adsum.client.native.waiting_request import WaitingRequest
from adsum.clock import SystemClock
from adsum.core.errors import AdsumError, Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.validation import without_credentials
from adsum.ports import Clock

REQUEST_TIMEOUT: Final = 5.0
"""Seconds that one node has to answer a request; after that the request fails at this node."""
WAIT_ANSWER_MARGIN: Final = 2.0
"""Seconds by which the answer to a waiting request may come later than its wait, since the node writes first; after
that the request raises `AnswerOverdue`."""
API_PATH: Final = "/api/v1"
TRUST_PAUSE: Final = 30.0
"""Seconds between two attempts to get a new certificate of the registry's authority. Within them the error stays."""
INVISIBLE: Final = "invisible"
"""The reason in the problem of a request for a service that the caller may not see. Other answers 404 have none."""

_NODE_FAILURES: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that concern the node and not the request: another node may serve it."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class RequestSender:
    """Sends requests to the nodes of one registry and decodes the answers."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        actor: str = "",
        clock: Clock | None = None,
        rng: Random,
        credentials: ClientCredentials | None = None,
    ) -> None:
        """`actor` is recorded as what the author of writes claims to be. Without `credentials` no token is sent."""
        self.nodes = RegistryNodes(urls, rng)
        self._clock = clock or SystemClock()
        uses_tls = any(url.startswith("https:") for url in urls)
        self._credentials = credentials
        self._trusted = credentials.authority if credentials is not None else ""
        """The authority that the present TLS context trusts, as PEM; "" for those of this system."""
        self._next_trust_at = self._clock.now()
        self.transport = Transport(self._make_ssl_context() if uses_tls else None)
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
        """Sends a request to one node; `path` is the whole path. Raises `NodeUnreachable`.

        It is sent again if that node refused a token or presented an authority that has been replaced since.
        """
        extra = {"Content-Type": "application/json"} if body is not None else {}

        async def attempt() -> TransportReply:
            headers = {**self._headers(node), **extra}
            return await self.transport.request(
                method, node + path, body=body, params=params, headers=headers, timeout=timeout, fresh=fresh
            )

        sent, trusted = self._headers(node), self._trusted
        try:
            reply = await attempt()
        except NodeNotTrusted:
            if not await self._has_new_trust(node, trusted):
                raise
            return await attempt()
        return await attempt() if reply.status == 401 and self._has_new_token(node, sent) else reply

    @asynccontextmanager
    async def open_stream(
        self, node: str, path: str, *, idle: float, params: QueryParams, headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yields the body of an endless answer of one node in chunks. `path` is below `API_PATH`.

        Raises `NodeUnreachable`, also when no byte arrives for `idle` seconds; `NotAuthenticated` and `NotAllowed`.
        """
        url = f"{node}{API_PATH}{path}"

        async def attempt(stack: AsyncExitStack) -> tuple[TransportReply, AsyncIterator[bytes]]:
            sent = {**self._headers(node), **headers}
            return await stack.enter_async_context(self.transport.stream(url, idle=idle, params=params, headers=sent))

        sent, trusted = self._headers(node), self._trusted
        async with AsyncExitStack() as stack:
            try:
                reply, chunks = await attempt(stack)
            except NodeNotTrusted:
                if not await self._has_new_trust(node, trusted):
                    raise
                reply, chunks = await attempt(stack)
            if reply.status == 401 and self._has_new_token(node, sent):
                await stack.aclose()  # Otherwise the refused connection stays open as long as the new one.
                reply, chunks = await attempt(stack)
            if reply.status != 200:
                raise self._access_refusal(reply) or _failed_stream(path, reply)
            yield chunks

    def _headers(self, node: str) -> dict[str, str]:
        """Returns the headers of every request to a node."""
        return {**self.headers, **(self._credentials.headers(node) if self._credentials is not None else {})}

    def _make_ssl_context(self) -> ssl.SSLContext:
        if self._credentials is not None:
            return self._credentials.make_ssl_context()
        return ssl.create_default_context()

    def _has_new_token(self, node: str, sent: Mapping[str, str]) -> bool:
        """Returns whether there is another token than the one that was sent; the files are read again if needed."""
        if self._credentials is None:
            return False
        return self._headers(node) != sent or (
            self._credentials.reload(self._clock.now()) and self._headers(node) != sent
        )

    async def _has_new_trust(self, node: str, trusted: str) -> bool:
        """Returns whether another certificate of the authority is trusted now than `trusted`.

        The files are read again. Then the node is asked for the certificate of its authority, at most once in
        `TRUST_PAUSE` seconds; it is accepted if its public key is the known one.
        """
        if self._trusted != trusted:
            return True
        credentials, now = self._credentials, self._clock.now()
        if credentials is None or now < self._next_trust_at:
            return False
        self._next_trust_at = now + TRUST_PAUSE
        credentials.reload(now)
        if credentials.authority == self._trusted and not await _renew_authority(credentials, node):
            return False
        try:
            self.transport.ssl_context = credentials.make_ssl_context()
            self._trusted = credentials.authority
        except Invalid as error:
            _log.warning("the new certificate of the registry's authority is not used: %s", error)
            return False
        return True

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
        refusal = self._access_refusal(reply)
        if refusal is not None:
            raise refusal
        return _decode(reply, kind, instance)

    def must_not_refuse(self, reply: TransportReply) -> None:
        """Raises `NodeDeclined` if the node can't serve the request now, `RegistryRefused` if it refuses it."""
        must_not_decline(reply)
        refusal = self._access_refusal(reply)
        if refusal is not None:
            raise refusal
        if reply.status >= 300:
            raise RegistryRefused(reply.status, _problem(reply).detail)

    def _access_refusal(self, reply: TransportReply) -> RegistryRefused | None:
        """Returns the error of an answer that refuses this caller; None for any other answer."""
        if reply.status not in (401, 403, 404):
            return None
        problem = _problem(reply)
        detail = problem.detail
        if reply.status == 401:
            return NotAuthenticated(detail, self._credentials.origin if self._credentials is not None else NO_TOKEN)
        return NotAllowed(reply.status, detail) if reply.status == 403 or problem.reason == INVISIBLE else None


def _failed_stream(path: str, reply: TransportReply) -> NodeUnreachable:
    text = f"it answered the {path.rpartition('/')[2]} with status {reply.status}"
    problem = _problem(reply)
    return NodeUnreachable(f"{text}: {problem.detail}" if problem.title else text)


async def _renew_authority(credentials: ClientCredentials, node: str) -> bool:
    """Gets the certificate of the registry's authority from a node. Returns whether it is a new one."""
    from adsum.client.native.authority import accept_authority, fetch_authority

    if not credentials.authority_hash or not node.startswith("https:"):
        return False
    try:
        certificate = accept_authority(await fetch_authority(node), credentials.authority_hash, node)
    except (AuthorityMismatch, NodeUnreachable, ImportError) as error:
        _log.warning("no new certificate of the registry's authority from %s: %s", without_credentials(node), error)
        return False
    return credentials.replace_authority(certificate)


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
