"""Every call of the native HTTP API, typed, against whichever registry node answers.

Bodies and answers are those of `adsum.wire`. Every call is idempotent, so the next node may be asked when one fails.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, TypeVar
from urllib.parse import quote

from adsum import wire
from adsum.client.errors import Garbled, RegistryRefused, RegistryUnavailable, Unreachable
from adsum.client.nodes import Nodes
from adsum.client.transport import Reply, Transport
from adsum.core.errors import AdsumError, Invalid, LeaseLost, UnknownInstance

TIMEOUT: Final = 5.0
"""Seconds that one node has to answer; then the next one is asked."""
ANSWER_LATE: Final = 5.0
"""Seconds by which the answer to a call that waits may be later than what was asked for."""
BASE: Final = "/api/v1"

_PASSING_TROUBLE: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that say nothing about the request: another node may do better."""

T = TypeVar("T")


class Api:
    """The native API of one registry."""

    def __init__(self, urls: Sequence[str], *, actor: str = "", rng: Random) -> None:
        """`actor` is recorded as the author of writes; without one the registry records our address."""
        self.nodes = Nodes(urls, rng)
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

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.Written:
        return await self._ask("PUT", _instance(service, id), wire.Written, body=body, about=(service, id))

    async def renew(self, leases: Sequence[wire.LeaseBody], *, timeout: float = TIMEOUT) -> wire.Renewed:
        """`timeout`: seconds that one node has to answer; then the next one is asked."""
        return await self._ask("POST", "/renew", wire.Renewed, body=wire.RenewBody(list(leases)), timeout=timeout)

    async def deregister(self, service: str, id: str, *, reason: str = "", holder: str = "") -> wire.Written:
        """Raises `LeaseLost` if `holder` is given and no longer holds the lease."""
        params = [(name, value) for name, value in (("reason", reason), ("holder", holder)) if value]
        return await self._ask("DELETE", _instance(service, id), wire.Written, params=params, about=(service, id))

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.Written:
        """Raises `UnknownInstance` and `LeaseLost`. Answers after `body.wait` seconds, or once it is written.

        A node is given `ANSWER_LATE` seconds more than that, so that one which only waits is never called away.
        """
        path, timeout = f"{_instance(service, id)}/override", TIMEOUT + body.wait + (ANSWER_LATE if body.wait else 0.0)
        return await self._ask("PUT", path, wire.Written, body=body, about=(service, id), timeout=timeout)

    async def unaware(
        self,
        service: str,
        revision: int,
        wait: float,
        *,
        about: Sequence[str] = (),
        acknowledged: Sequence[str] = (),
        gone: Sequence[str] = (),
    ) -> wire.Unaware:
        """Which consumers of the node that answers don't route by that revision after `wait` seconds.

        `about`: consumers to look for there; `acknowledged`, `gone`: those that other nodes know to have acknowledged,
        or to have said good-bye.
        """
        params = [("revision", str(revision)), ("wait", f"{wait:.3f}"), *(("consumer", id) for id in about)]
        params += [*(("acknowledged", id) for id in acknowledged), *(("gone", id) for id in gone)]
        path, timeout = f"/services/{_part(service)}/unaware", TIMEOUT + wait
        return await self._ask("GET", path, wire.Unaware, params=params, timeout=timeout)

    async def resume(self, service: str, id: str, *, reason: str = "") -> wire.Written:
        """Let evidence speak again. Raises `UnknownInstance`."""
        params = [("reason", reason)] if reason else []
        path = f"{_instance(service, id)}/override"
        return await self._ask("DELETE", path, wire.Written, params=params, about=(service, id))

    async def changes(self, service: str = "", id: str = "", limit: int = 100) -> wire.ChangeList:
        params = [(name, value) for name, value in (("service", service), ("id", id)) if value]
        return await self._ask("GET", "/changes", wire.ChangeList, params=[*params, ("limit", str(limit))])

    async def routes(self) -> wire.RouteList:
        """Every route, by name."""
        return await self._ask("GET", "/routes", wire.RouteList)

    async def put_route(self, name: str, body: wire.RouteBody) -> wire.Written:
        return await self._ask("PUT", f"/routes/{_part(name)}", wire.Written, body=body)

    async def remove_route(self, name: str, *, reason: str = "") -> wire.Written:
        params = [("reason", reason)] if reason else []
        return await self._ask("DELETE", f"/routes/{_part(name)}", wire.Written, params=params)

    async def check_route(self, body: wire.CheckRouteBody) -> wire.VerdictView:
        return await self._ask("POST", "/check-route", wire.VerdictView, body=body)

    async def upstreams(self) -> wire.UpstreamList:
        return await self._ask("GET", "/upstreams", wire.UpstreamList)

    async def put_upstream(self, service: str, body: wire.UpstreamBody) -> wire.Written:
        return await self._ask("PUT", f"/upstreams/{_part(service)}", wire.Written, body=body)

    async def remove_upstream(self, service: str, *, reason: str = "") -> wire.Written:
        params = [("reason", reason)] if reason else []
        return await self._ask("DELETE", f"/upstreams/{_part(service)}", wire.Written, params=params)

    async def replace_intent(self, body: wire.IntentBody) -> wire.Written:
        """All routes and upstreams at once; those that are not in it are withdrawn."""
        return await self._ask("PUT", "/intent", wire.Written, body=body)

    async def status(self) -> wire.NodeStatus:
        """What the node that answers says of itself."""
        return await self._ask("GET", "/status", wire.NodeStatus)

    async def applied(self, node: str, watch: str, revision: int) -> None:
        """Say that we route by `revision`, to the node that serves the watch. Raises `Unreachable`."""
        path = f"{BASE}/watches/{_part(watch)}/applied"
        body = wire.encode(wire.AppliedBody(revision))
        await self._once(node, "POST", path, body, [], TIMEOUT)

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        body: wire.Request | None = None,
        params: list[tuple[str, str]] | None = None,
        about: tuple[str, str] = ("", ""),
        timeout: float = TIMEOUT,
    ) -> T:
        encoded = wire.encode(body) if body is not None else None
        troubles = []
        for node in self.nodes:
            try:
                reply = await self._once(node, method, BASE + path, encoded, params or [], timeout)
                if reply.status not in _PASSING_TROUBLE:
                    return _read(reply, kind, about)
                trouble = _problem(reply).detail
            except (Unreachable, Garbled) as error:
                trouble = str(error)
            self.nodes.failed(node)
            troubles.append(f"{node}: {trouble}")
        raise RegistryUnavailable("; ".join(troubles))

    async def _once(
        self, node: str, method: str, path: str, body: bytes | None, params: list[tuple[str, str]], timeout: float
    ) -> Reply:
        headers = dict(self.headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self.transport.ask(method, node + path, body=body, params=params, headers=headers, timeout=timeout)


def _part(text: str) -> str:
    return quote(text, safe="")


def _instance(service: str, id: str) -> str:
    return f"/services/{_part(service)}/instances/{_part(id)}"


def _read(reply: Reply, kind: type[T], about: tuple[str, str]) -> T:
    if reply.status >= 300:
        raise _refusal(reply, about)
    try:
        return wire.decode(reply.body, kind)
    except Invalid as error:
        raise Garbled(f"an answer that is none: {error}") from None


def _refusal(reply: Reply, about: tuple[str, str]) -> AdsumError:
    """The error that an answer means."""
    problem = _problem(reply)
    if any(about) and reply.status == 404:
        return UnknownInstance(*about)
    if any(about) and reply.status == 409:
        return LeaseLost(*about)
    if problem.field:
        return Invalid(problem.field, problem.detail.removeprefix(f"{problem.field}: "))
    return RegistryRefused(reply.status, problem.detail)


def _problem(reply: Reply) -> wire.Problem:
    try:
        return wire.decode(reply.body, wire.Problem)
    except Invalid:
        return wire.Problem("", reply.status, f"it answered with status {reply.status}")
