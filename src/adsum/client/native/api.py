"""The operations of the native HTTP API, as typed methods.

Bodies and answers are those of `adsum.wire`. When a node fails, every request goes to the next one. Reads, and writes
that do no harm when they arrive twice, go to the next node as soon as one is silent (`client.native.hedged_requests`).
Before any other write, and before a request that waits at the registry, the client looks for a node that answers.

Requests that a drain depends on (drains, acknowledgements, good-byes, deregistering) use new connections. An idle
connection may have been cut off unnoticed, and then the answer would come too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from adsum import wire
from adsum.client.errors import RegistryRefused
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.request_sender import API_PATH, REQUEST_TIMEOUT, RequestSender, must_not_decline
from adsum.client.native.transport import QueryParams
from adsum.core.errors import RegistrationConflict

ACKNOWLEDGE_TIMEOUT: Final = 2.0
"""Seconds that a node has to accept an acknowledgement; then it is sent again."""
UPDATE_WATCH_TIMEOUT: Final = 4.0
"""Seconds that a node has to let services join a watch; it may wait for other nodes' changes first. Then the request is
sent again."""
GOODBYE_TIMEOUT: Final = 0.5
"""Seconds that good-byes may take; a node that does not accept one in time notices by itself that the consumer left."""


class RegistryApi(RequestSender):
    """The native API of one registry. Every method raises `RegistryUnavailable` if no node answers."""

    async def services(self) -> wire.ServiceList:
        """Returns every service, with the number of its instances by status."""
        return await self.send("GET", "/services", wire.ServiceList)

    async def service(
        self,
        service: str,
        *,
        status: Sequence[str] = (),
        tag: Sequence[str] = (),
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> wire.ServiceView:
        """Returns the instances of a service that match every filter."""
        params = [("status", value) for value in status] + [("tag", value) for value in tag]
        if zone is not None:
            params.append(("zone", zone))
        params += [(f"metadata[{key}]", value) for key, value in (metadata or {}).items()]
        return await self.send("GET", _service_path(service), wire.ServiceView, params=params)

    async def instance(self, service: str, id: str) -> wire.InstanceDetail:
        """Returns one instance, with its checks and its lease. Raises `UnknownInstance`."""
        return await self.send("GET", _instance_path(service, id), wire.InstanceDetail, instance=(service, id))

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        """Registers an instance. Raises `RegistrationConflict` if a live process has the id or the place."""
        return await self.send("PUT", _instance_path(service, id), wire.WriteResult, body=body)

    async def register_many(self, registrations: Sequence[wire.NamedRegistrationBody]) -> wire.RegistrationResult:
        """Registers at most `wire.MAX_REGISTRATIONS` instances. The result has an answer to each, in their order.

        A registration that is refused raises nothing. Raises `RegistryRefused` (404) if the registry is of an
        earlier version, which can't do this.
        """
        body = wire.RegisterBody(list(registrations))
        return await self.send("POST", "/register", wire.RegistrationResult, body=body)

    async def renew(self, leases: Sequence[wire.LeaseBody], *, timeout: float = REQUEST_TIMEOUT) -> wire.RenewalResult:
        """Renews leases. `timeout`: seconds that one node has to answer; after half of it the next one is tried too."""
        body, hedge_delay = wire.RenewBody(list(leases)), min(HEDGE_DELAY, timeout / 2)
        return await self.send(
            "POST", "/renew", wire.RenewalResult, body=body, timeout=timeout, hedge_delay=hedge_delay
        )

    async def deregister(self, service: str, id: str, *, reason: str = "", holder: str = "") -> wire.WriteResult:
        """Deregisters an instance. Raises `LeaseLost` if `holder` is given and no longer holds the lease."""
        params = [(name, value) for name, value in (("reason", reason), ("holder", holder)) if value]
        # Without a holder, a late copy of the request might deregister the next process that takes the id.
        hedge_delay = HEDGE_DELAY if holder else None
        return await self.send(
            "DELETE",
            _instance_path(service, id),
            wire.WriteResult,
            params=params,
            instance=(service, id),
            hedge_delay=hedge_delay,
            fresh=True,
        )

    async def forget(self, service: str, *, reason: str = "") -> wire.WriteResult:
        """Forgets a service that has no instances. Raises `RegistryRefused` if it has some."""
        try:
            return await self.send(
                "DELETE", _service_path(service), wire.WriteResult, params=_reason(reason), hedge_delay=None
            )
        except RegistrationConflict as error:
            raise RegistryRefused(409, str(error)) from None

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        """Declares a status that outranks the checks, such as draining.

        Returns within `body.wait` and `WAIT_ANSWER_MARGIN` seconds. Raises `UnknownInstance` and `LeaseLost`, and
        `AnswerOverdue` or `AnswerLost` if the override may have taken effect but no answer came in time.
        """

        def encode(wait: float) -> tuple[bytes, QueryParams]:
            return wire.encode(msgspec.structs.replace(body, wait=wait)), ()

        path = f"{_instance_path(service, id)}/override"
        return await self.send_waiting(
            "PUT", path, wire.WriteResult, encode, body.wait, instance=(service, id), fresh=True
        )

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
        """Returns the consumers of one node that have not acknowledged that revision after `wait` seconds.

        `consumers`: ids to look for at that node. `acknowledged` and `goodbyes`: ids of consumers that have
        acknowledged or sent a good-bye at other nodes.
        """
        known = [*(("consumer", id) for id in consumers), *(("acknowledged", id) for id in acknowledged)]
        known += (("goodbye", id) for id in goodbyes)

        def encode(wait: float) -> tuple[None, QueryParams]:
            return None, [("revision", str(revision)), ("wait", f"{wait:.3f}"), *known]

        path = f"{_service_path(service)}/unacknowledged"
        return await self.send_waiting("GET", path, wire.AcknowledgementReport, encode, wait)

    async def resume(self, service: str, id: str, *, reason: str = "") -> wire.WriteResult:
        """Removes an override, so that lease and checks determine the status again. Raises `UnknownInstance`."""
        path = f"{_instance_path(service, id)}/override"
        return await self.send(
            "DELETE", path, wire.WriteResult, params=_reason(reason), instance=(service, id), hedge_delay=None
        )

    async def changes(self, service: str = "", id: str = "", limit: int = 100) -> wire.ChangeList:
        """Returns recorded changes, of one service or instance if given, the newest first."""
        params = [(name, value) for name, value in (("service", service), ("id", id)) if value]
        return await self.send("GET", "/changes", wire.ChangeList, params=[*params, ("limit", str(limit))])

    async def routes(self) -> wire.RouteList:
        """Returns every route, by name."""
        return await self.send("GET", "/routes", wire.RouteList)

    async def route(self, name: str) -> wire.RouteView:
        """Returns one route. Raises `RegistryRefused` (404) if it is not declared."""
        return await self.send("GET", f"/routes/{_part(name)}", wire.RouteView)

    async def edits(self, name: str = "", limit: int = 100) -> wire.EditList:
        """Returns recorded edits of routes and upstreams, of one name if given, the newest first."""
        params = [("name", name)] if name else []
        return await self.send("GET", "/intent/history", wire.EditList, params=[*params, ("limit", str(limit))])

    async def put_route(self, name: str, body: wire.RouteBody, *, reason: str = "") -> wire.WriteResult:
        """Declares a route, or replaces it."""
        path = f"/routes/{_part(name)}"
        return await self.send("PUT", path, wire.WriteResult, body=body, params=_reason(reason), hedge_delay=None)

    async def remove_route(self, name: str, *, reason: str = "") -> wire.WriteResult:
        """Withdraws a route."""
        path = f"/routes/{_part(name)}"
        return await self.send("DELETE", path, wire.WriteResult, params=_reason(reason), hedge_delay=None)

    async def check_route(self, body: wire.CheckRouteBody) -> wire.VerdictView:
        """Returns the route that a request would take, and its targets."""
        return await self.send("POST", "/check-route", wire.VerdictView, body=body)

    async def upstreams(self) -> wire.UpstreamList:
        """Returns every upstream, by service."""
        return await self.send("GET", "/upstreams", wire.UpstreamList)

    async def put_upstream(self, service: str, body: wire.UpstreamBody, *, reason: str = "") -> wire.WriteResult:
        """Declares an upstream, or replaces it."""
        path = f"/upstreams/{_part(service)}"
        return await self.send("PUT", path, wire.WriteResult, body=body, params=_reason(reason), hedge_delay=None)

    async def remove_upstream(self, service: str, *, reason: str = "") -> wire.WriteResult:
        """Withdraws an upstream."""
        path = f"/upstreams/{_part(service)}"
        return await self.send("DELETE", path, wire.WriteResult, params=_reason(reason), hedge_delay=None)

    async def replace_intent(self, body: wire.IntentBody, *, prune: bool = False, reason: str = "") -> wire.WriteResult:
        """Declares all routes and upstreams at once; those that are not in `body` are withdrawn.

        Raises `Invalid` for an empty body unless `prune` is true.
        """
        params = [*([("prune", "true")] if prune else []), *_reason(reason)]
        return await self.send("PUT", "/intent", wire.WriteResult, body=body, params=params, hedge_delay=None)

    async def status(self) -> wire.NodeStatus:
        """Returns the status of the node that answers."""
        return await self.send("GET", "/status", wire.NodeStatus)

    async def acknowledge(self, node: str, watch: str, revision: int, services: Sequence[str] = ()) -> None:
        """Acknowledges a revision at the node that serves the watch: the consumer routes by it.

        `services`: only for these services of the watch (none: for all). Raises `NodeUnreachable`.
        """
        path = f"{API_PATH}/watches/{_part(watch)}/acknowledge"
        body = wire.encode(wire.AcknowledgementBody(revision, list(services)))
        reply = await self.send_to(node, "POST", path, body=body, timeout=ACKNOWLEDGE_TIMEOUT, fresh=True)
        must_not_decline(reply)

    async def update_watch(self, node: str, watch: str, body: wire.WatchServicesBody, *, fresh: bool) -> None:
        """Lets services join and leave a watch at the node that serves it. `fresh`: over a new connection.

        Raises `NodeUnreachable`, and `RegistryRefused` if the node refuses this caller, the request or the watch.
        """
        path = f"{API_PATH}/watches/{_part(watch)}/services"
        reply = await self.send_to(
            node, "POST", path, body=wire.encode(body), timeout=UPDATE_WATCH_TIMEOUT, fresh=fresh
        )
        self.must_not_refuse(reply)

    async def send_goodbye(self, consumer: str, services: Sequence[str] = ()) -> None:
        """Sends a good-bye to every node: the consumer no longer calls these services (none: any service).

        Best effort, for at most `GOODBYE_TIMEOUT` seconds; never raises for a node that does not answer.
        """
        path, params = f"{API_PATH}/consumers/{_part(consumer)}", [("service", service) for service in services]
        requests = (
            self.send_to(node, "DELETE", path, params=params, timeout=GOODBYE_TIMEOUT, fresh=True)
            for node in self.nodes.urls
        )
        await asyncio.gather(*requests, return_exceptions=True)


def _part(text: str) -> str:
    """Returns the text as one part of a path."""
    return quote(text, safe="")


def _service_path(service: str) -> str:
    return f"/services/{_part(service)}"


def _instance_path(service: str, id: str) -> str:
    return f"{_service_path(service)}/instances/{_part(id)}"


def _reason(reason: str) -> QueryParams:
    """Returns the parameter with the reason of a write, which is recorded."""
    return [("reason", reason)] if reason else []
