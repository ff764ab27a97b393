"""Every call of the native HTTP API, typed, against whichever registry node answers.

Bodies and answers are those of `adsum.wire`. Every call may be sent to the next node when one fails. Reads, and writes
that a second, late copy can't harm, are sent to the next node as soon as one is silent (`client.native.hedging`). All
other calls, and those that wait at the registry and so are silent by right, first look for a node that answers.

What a drain depends on (drains, acknowledgements, good-byes, deregistering) goes over new connections: one that waits
for another request may have been cut off without a word, and then the answer would come too late.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from adsum import wire
from adsum.client.errors import NodeDeclined, NodeUnreachable, ProtocolViolation, RegistryRefused
from adsum.client.native.hedged_requests import HEDGE_DELAY, OnProgress, first_answer
from adsum.client.native.nodes import RegistryNodes
from adsum.client.native.transport import Transport, TransportReply
from adsum.client.native.waiting_request import WaitingRequest
from adsum.clock import SystemClock
from adsum.core.errors import AdsumError, Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.ports import Clock

REQUEST_TIMEOUT: Final = 5.0
"""Seconds that one node has to answer; then that call fails there."""
WAIT_ANSWER_MARGIN: Final = 2.0
"""Seconds by which the answer to a call that waits may be later than what was asked for, since it writes first; then
the call raises `AnswerOverdue`."""
ACKNOWLEDGE_TIMEOUT: Final = 2.0
"""Seconds that a node has to take an acknowledgement; then it is sent again."""
GOODBYE_TIMEOUT: Final = 0.5
"""Seconds that good-byes may take; nodes that have not answered by then find out by themselves."""
API_PATH: Final = "/api/v1"

_PASSING_TROUBLE: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that say nothing about the request: another node may do better."""

T = TypeVar("T")


class RegistryApi:
    """The native API of one registry."""

    def __init__(self, urls: Sequence[str], *, actor: str = "", clock: Clock | None = None, rng: Random) -> None:
        """`actor` is recorded as the author of writes; without one the registry records our address."""
        self.nodes = RegistryNodes(urls, rng)
        self._clock = clock or SystemClock()
        secure = any(url.startswith("https:") for url in urls)
        self.transport = Transport(ssl.create_default_context() if secure else None)
        self.headers: dict[str, str] = {wire.ACTOR_HEADER: actor} if actor else {}

    async def close(self) -> None:
        """Let go of every connection; idempotent."""
        await self.transport.close()

    async def services(self) -> wire.ServiceList:
        return await self._ask("GET", "/services", wire.ServiceList)

    async def service(
        self,
        service: str,
        *,
        status: Sequence[str] = (),
        tag: Sequence[str] = (),
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> wire.ServiceView:
        """A service as it stands, only the instances that match every filter."""
        params = [("status", value) for value in status] + [("tag", value) for value in tag]
        if zone is not None:
            params.append(("zone", zone))
        params += [(f"metadata[{key}]", value) for key, value in (metadata or {}).items()]
        return await self._ask("GET", f"/services/{_part(service)}", wire.ServiceView, params=params)

    async def instance(self, service: str, id: str) -> wire.InstanceDetail:
        """Raises `UnknownInstance`."""
        return await self._ask("GET", _instance(service, id), wire.InstanceDetail, about=(service, id))

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        """Raises `Taken` if a live process has the id or the place."""
        return await self._ask("PUT", _instance(service, id), wire.WriteResult, body=body)

    async def renew(self, leases: Sequence[wire.LeaseBody], *, timeout: float = REQUEST_TIMEOUT) -> wire.RenewalResult:
        """`timeout`: seconds that one node has to answer; the next one is asked within half of it."""
        body, silence = wire.RenewBody(list(leases)), min(HEDGE_DELAY, timeout / 2)
        return await self._ask("POST", "/renew", wire.RenewalResult, body=body, timeout=timeout, silence=silence)

    async def deregister(self, service: str, id: str, *, reason: str = "", holder: str = "") -> wire.WriteResult:
        """Raises `LeaseLost` if `holder` is given and no longer holds the lease."""
        params = [(name, value) for name, value in (("reason", reason), ("holder", holder)) if value]
        silence = HEDGE_DELAY if holder else None  # Without a holder, a late copy might take out who registers next.
        path, about = _instance(service, id), (service, id)
        return await self._ask(
            "DELETE", path, wire.WriteResult, params=params, about=about, silence=silence, fresh=True
        )

    async def forget(self, service: str, *, reason: str = "") -> wire.WriteResult:
        """Raises `RegistryRefused` if the service has instances."""
        params = [("reason", reason)] if reason else []
        try:
            return await self._ask(
                "DELETE", f"/services/{_part(service)}", wire.WriteResult, params=params, silence=None
            )
        except RegistrationConflict as refusal:
            raise RegistryRefused(409, str(refusal)) from None

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        """Answers within `body.wait` seconds and `WAIT_ANSWER_MARGIN` more.

        Raises `UnknownInstance` and `LeaseLost`, and `AnswerOverdue` or `AnswerLost` if the instance may have the
        override, but no answer came in time.
        """

        def encoded(wait: float) -> tuple[bytes, list[tuple[str, str]]]:
            return wire.encode(msgspec.structs.replace(body, wait=wait)), []

        path = f"{_instance(service, id)}/override"
        return await self._wait("PUT", path, wire.WriteResult, encoded, body.wait, about=(service, id), fresh=True)

    async def unacknowledged(
        self,
        service: str,
        revision: int,
        wait: float,
        *,
        consumers: Sequence[str] = (),
        acknowledged: Sequence[str] = (),
        goodbyes: Sequence[str] = (),
    ) -> wire.AcknowledgementReport:
        """Which consumers of the node that answers don't route by that revision after `wait` seconds.

        `about`: consumers to look for there; `acknowledged`, `gone`: those that other nodes know to have acknowledged,
        or to have said good-bye.
        """
        known = [*(("consumer", id) for id in consumers), *(("acknowledged", id) for id in acknowledged)]
        known += (("goodbye", id) for id in goodbyes)

        def encoded(wait: float) -> tuple[None, list[tuple[str, str]]]:
            return None, [("revision", str(revision)), ("wait", f"{wait:.3f}"), *known]

        return await self._wait(
            "GET", f"/services/{_part(service)}/unacknowledged", wire.AcknowledgementReport, encoded, wait
        )

    async def resume(self, service: str, id: str, *, reason: str = "") -> wire.WriteResult:
        """Let evidence speak again. Raises `UnknownInstance`."""
        path, about = f"{_instance(service, id)}/override", (service, id)
        return await self._ask("DELETE", path, wire.WriteResult, params=_reason(reason), about=about, silence=None)

    async def changes(self, service: str = "", id: str = "", limit: int = 100) -> wire.ChangeList:
        params = [(name, value) for name, value in (("service", service), ("id", id)) if value]
        return await self._ask("GET", "/changes", wire.ChangeList, params=[*params, ("limit", str(limit))])

    async def routes(self) -> wire.RouteList:
        """Every route, by name."""
        return await self._ask("GET", "/routes", wire.RouteList)

    async def route(self, name: str) -> wire.RouteView:
        """One route. Raises `UnknownDocument`."""
        return await self._ask("GET", f"/routes/{_part(name)}", wire.RouteView)

    async def edits(self, name: str = "", limit: int = 100) -> wire.EditList:
        """What became of routes and upstreams, newest first; of those of one name, if given."""
        params = [("name", name)] if name else []
        return await self._ask("GET", "/intent/history", wire.EditList, params=[*params, ("limit", str(limit))])

    async def put_route(self, name: str, body: wire.RouteBody, *, reason: str = "") -> wire.WriteResult:
        path = f"/routes/{_part(name)}"
        return await self._ask("PUT", path, wire.WriteResult, body=body, params=_reason(reason), silence=None)

    async def remove_route(self, name: str, *, reason: str = "") -> wire.WriteResult:
        return await self._ask(
            "DELETE", f"/routes/{_part(name)}", wire.WriteResult, params=_reason(reason), silence=None
        )

    async def check_route(self, body: wire.CheckRouteBody) -> wire.VerdictView:
        return await self._ask("POST", "/check-route", wire.VerdictView, body=body)

    async def upstreams(self) -> wire.UpstreamList:
        return await self._ask("GET", "/upstreams", wire.UpstreamList)

    async def put_upstream(self, service: str, body: wire.UpstreamBody, *, reason: str = "") -> wire.WriteResult:
        path = f"/upstreams/{_part(service)}"
        return await self._ask("PUT", path, wire.WriteResult, body=body, params=_reason(reason), silence=None)

    async def remove_upstream(self, service: str, *, reason: str = "") -> wire.WriteResult:
        path = f"/upstreams/{_part(service)}"
        return await self._ask("DELETE", path, wire.WriteResult, params=_reason(reason), silence=None)

    async def replace_intent(self, body: wire.IntentBody, *, prune: bool = False, reason: str = "") -> wire.WriteResult:
        """Declare all routes and upstreams at once; those that are not in it are withdrawn.

        Raises `Invalid` for a body that names nothing, unless `prune` is true.
        """
        params = [*([("prune", "true")] if prune else []), *_reason(reason)]
        return await self._ask("PUT", "/intent", wire.WriteResult, body=body, params=params, silence=None)

    async def status(self) -> wire.NodeStatus:
        """What the node that answers says of itself."""
        return await self._ask("GET", "/status", wire.NodeStatus)

    async def acknowledge(self, node: str, watch: str, revision: int) -> None:
        """Say that we route by `revision`, to the node that serves the watch. Raises `Unreachable`."""
        path = f"{API_PATH}/watches/{_part(watch)}/acknowledge"
        body = wire.encode(wire.AcknowledgementBody(revision))
        reply = await self._once(node, "POST", path, body, [], ACKNOWLEDGE_TIMEOUT, fresh=True)
        if reply.status in _PASSING_TROUBLE:
            raise NodeDeclined(_problem(reply).detail)

    async def send_goodbye(self, consumer: str, services: Sequence[str] = ()) -> None:
        """Tell every node that the consumer calls nobody of these services (none: of any service) any more.

        Best effort, at most `GOODBYE_TIMEOUT` seconds; never raises for a node that does not answer.
        """
        path, params = f"{API_PATH}/consumers/{_part(consumer)}", [("service", service) for service in services]
        told = (self._once(node, "DELETE", path, None, params, GOODBYE_TIMEOUT, fresh=True) for node in self.nodes.urls)
        await asyncio.gather(*told, return_exceptions=True)

    async def find_responsive_node(self, timeout: float = REQUEST_TIMEOUT) -> str:
        """A node that answers within so many seconds; it is the first in the order from now on. Raises
        `RegistryUnavailable`.
        """

        async def ask(node: str, heard: OnProgress) -> str:  # noqa: ARG001 - an answer is one piece
            await self._once(node, "GET", "/healthz", None, [], timeout, fresh=True)
            return node

        return await first_answer(self.nodes, ask, self._clock)

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: wire.RequestBody | None = None,
        params: list[tuple[str, str]] | None = None,
        about: tuple[str, str] = ("", ""),
        timeout: float = REQUEST_TIMEOUT,
        silence: float | None = HEDGE_DELAY,
        fresh: bool = False,
    ) -> T:
        """`silence`: seconds of silence after which the next node is asked, too; None for a call that is not harmless
        twice: it goes to a node that has just answered.
        """
        encoded = wire.encode(body) if body is not None else None

        async def ask(node: str, heard: OnProgress) -> T:  # noqa: ARG001 - an answer is one piece
            return await self._answer(node, method, path, kind, encoded, params or [], about, timeout, fresh)

        if silence is None and len(self.nodes) > 1:
            await self.find_responsive_node()
        return await first_answer(self.nodes, ask, self._clock, hedge_delay=silence)

    async def _wait(
        self,
        method: str,
        path: str,
        kind: type[T],
        encoded: Callable[[float], tuple[bytes | None, list[tuple[str, str]]]],
        wait: float,
        *,
        about: tuple[str, str] = ("", ""),
        fresh: bool = False,
    ) -> T:
        """A call that waits at the registry for up to `wait` seconds; `encoded` gives its body and parameters for what
        is left of that. Raises what `WaitingRequest.answer` does.
        """
        late = WAIT_ANSWER_MARGIN if wait else REQUEST_TIMEOUT

        async def ask(node: str, left: float) -> T:
            body, params = encoded(left)
            return await self._answer(node, method, path, kind, body, params, about, left + late, fresh)

        async def look(left: float) -> str:
            return await self.find_responsive_node(min(REQUEST_TIMEOUT, left + late))

        return await WaitingRequest(self.nodes, self._clock, wait).run(ask, look)

    async def _answer(
        self,
        node: str,
        method: str,
        path: str,
        kind: type[T],
        body: bytes | None,
        params: list[tuple[str, str]],
        about: tuple[str, str],
        timeout: float,
        fresh: bool,
    ) -> T:
        """The answer of one node. Raises `Unreachable` and `ProtocolViolation` if another node may do better, or what the answer
        means.
        """
        reply = await self._once(node, method, API_PATH + path, body, params, timeout, fresh=fresh)
        if reply.status in _PASSING_TROUBLE:
            problem = _problem(reply)
            # About `wait`: all but the waiting was done.
            raise NodeUnreachable(problem.detail) if problem.field == "wait" else NodeDeclined(problem.detail)
        return _read(reply, kind, about)

    async def _once(
        self,
        node: str,
        method: str,
        path: str,
        body: bytes | None,
        params: list[tuple[str, str]],
        timeout: float,
        *,
        fresh: bool,
    ) -> TransportReply:
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self.transport.request(
            method, node + path, body=body, params=params, headers=headers, timeout=timeout, fresh=fresh
        )


def _part(text: str) -> str:
    return quote(text, safe="")


def _reason(reason: str) -> list[tuple[str, str]]:
    """The parameter that says why, for the record."""
    return [("reason", reason)] if reason else []


def _instance(service: str, id: str) -> str:
    return f"/services/{_part(service)}/instances/{_part(id)}"


def _read(reply: TransportReply, kind: type[T], about: tuple[str, str]) -> T:
    if reply.status >= 300:
        raise _refusal(reply, about)
    try:
        return wire.decode(reply.body, kind)
    except Invalid as error:
        raise ProtocolViolation(f"an answer that is none: {error}") from None


def _refusal(reply: TransportReply, about: tuple[str, str]) -> AdsumError:
    """The error that an answer means."""
    problem = _problem(reply)
    if any(about) and reply.status == 404:
        return UnknownInstance(*about)
    if any(about) and reply.status == 409:
        return LeaseLost(*about)
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
