"""The source for a Consul agent, without a registry: services with a TTL check, and blocking queries.

The agent runs the checks that an instance declares. Consumers can't acknowledge a drain; that needs a registry.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import (
    DrainUnacknowledged,
    NodeUnreachable,
    ProtocolViolation,
    RegistryRefused,
    RegistryUnavailable,
)
from adsum.client.local_address import LOOPBACK, outbound_address_to_any
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.transport import QueryParams, Transport, TransportReply
from adsum.client.registration.reachability import is_reachable
from adsum.client.sources.single_renewals import LossReason, renew_singly
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.consul import services
from adsum.consul.address import ConsulAddress
from adsum.consul.blocking_query import QUERIES_PER_SECOND, QUERY_BURST, BlockingQuery, IndexChange
from adsum.core.backoff import Backoff
from adsum.core.catalog.takeover import ClaimStrength, Takeover, claim_strength, conflict_message
from adsum.core.errors import Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Endpoint, Key, Registration
from adsum.core.token_bucket import TokenBucket
from adsum.ports import Clock

T = TypeVar("T")

QUERY_WAIT: Final = 30.0
"""Seconds that a query waits for a change; then Consul answers without one."""
QUERY_WAIT_JITTER: Final = 1.0 / 16
"""Consul may answer later by this share of the wait, so that queries that began together do not end together."""
AGENT_TIMEOUT: Final = 5.0
"""Seconds that the agent has to answer other requests, and a query beyond its wait."""
DRAIN_SETTLE_TIME: Final = 1.0
"""Seconds that a drain waits after the agent has taken it, until Consul's servers have passed it on to consumers."""
MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE = 0.25, 10.0
"""Seconds, bounds of the pause after the agent did not answer."""

_EPOCH: Final = "consul"
"""The epoch of registrations. It never changes: each renewal checks whether the agent still has the instance."""


class _AgentSelf(msgspec.Struct, frozen=True, rename="pascal"):
    member: dict[str, Any]


class ConsulSource:
    """Implements `Source` with a Consul agent. Consul records no author, so `actor` is not used."""

    cache_fallback_delay = HEDGE_DELAY

    def __init__(
        self,
        urls: Sequence[str],
        *,
        actor: str,
        consumer: ConsumerIdentity | None = None,
        clock: Clock,
        rng: Random,
    ) -> None:
        """Raises `Invalid`."""
        if len(urls) != 1:
            raise Invalid("url", "must be a single agent, such as consul://127.0.0.1:8500")
        self._address = ConsulAddress.parse(urls[0], os.environ)
        self._transport = Transport(self._address.ssl_context(), is_registry=False)
        self._headers = {"X-Consul-Token": self._address.token} if self._address.token else {}
        self._clock = clock
        self._rng = rng
        self._registered: dict[Key, Registration] = {}

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follows a service by blocking queries: the next one is sent as soon as there was an answer."""
        backoff = Backoff(MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE)
        rate_limit = TokenBucket(QUERIES_PER_SECOND, QUERY_BURST)
        query, current = _resume(position()), dict[str, Endpoint]()
        while True:
            await self._clock.sleep(rate_limit.delay(self._clock.now()))
            try:
                index, endpoints, age = await self._query(service, query.index)
            except (NodeUnreachable, ProtocolViolation, RegistryRefused, RegistryUnavailable) as error:
                yield ConnectionLost(f"{self._address}: {error}")
                # A random pause: all clients of an agent that ends notice at once, and must not come back together.
                await self._clock.sleep(self._rng.uniform(0.0, backoff.next(self._rng)))
                continue
            backoff.reset()
            if (change := query.update(index)) is IndexChange.WENT_BACK:
                continue
            at = ViewPosition(f"{_EPOCH}-{query.resets}", query.index)
            if change is IndexChange.SAME and endpoints == current:
                yield ServiceUpdate(at, full=False, changed={}, since=at.revision, age=age)
            else:
                current = endpoints
                yield ServiceUpdate(at, full=True, changed=endpoints, age=age)

    async def _query(self, service: str, index: int) -> tuple[int, dict[str, Endpoint], float]:
        """Returns the new index, the endpoints by id, and their age in seconds.

        Raises `NodeUnreachable`, `ProtocolViolation`, `RegistryRefused` and `RegistryUnavailable`.
        """
        params = [("index", str(index)), ("wait", f"{QUERY_WAIT:g}s")] if index else []
        params += [("dc", self._address.dc)] if self._address.dc else []
        timeout = AGENT_TIMEOUT + (QUERY_WAIT * (1 + QUERY_WAIT_JITTER) if index else 0.0)
        reply = await self._send("GET", f"/health/service/{_part(service)}", params=params, timeout=timeout)
        if reply.status != 200:
            raise _refusal(reply)
        try:
            new_index = int(reply.headers["x-consul-index"])
            age = int(reply.headers.get("x-consul-lastcontact") or 0) / 1000
        except (KeyError, ValueError):
            raise ProtocolViolation("the answer has no index, so it is not from Consul") from None
        return new_index, services.decode_entries(service, _decode(reply, list[services.HealthEntry])), age

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        """Raises `Invalid` for what Consul can't list or check, and `RegistrationConflict`."""
        registration = body.to_registration(service, id, "")
        consul_body = services.registration_body(registration)
        await self._must_be_free(registration, body.takeover)
        await self._write("/agent/service/register", consul_body, [("replace-existing-checks", "true")])
        self._registered[registration.key] = registration
        return wire.WriteResult(_EPOCH, 0, registration.ttl)

    async def renew(self, leases: Sequence[wire.LeaseBody], node_timeout: float) -> wire.RenewalResult:
        try:
            lost = await renew_singly(leases, self._renew, node_timeout)
        except TimeoutError:
            raise RegistryUnavailable(f"{self._address} did not answer in time") from None
        return wire.RenewalResult(_EPOCH, 0, len(leases) - len(lost), lost)

    async def _renew(self, lease: wire.LeaseBody) -> LossReason | None:
        """Renews one lease. Returns why it is lost; None: it was renewed."""
        registration = self._registered.get(Key(lease.service, lease.id))
        if registration is None:
            return "unknown"
        if registration.ttl is not None:
            reply = await self._request("PUT", f"/agent/check/pass/{_part(services.ttl_check_id(registration))}")
            if reply.status == 200:
                return None
            if not _is_missing(reply):
                raise _refusal(reply)
        holder = await self._holder(registration.key)
        if holder is None:
            return "unknown"
        if holder != registration.holder:
            return "superseded"
        return None if registration.ttl is None else "unknown"

    async def _must_be_free(self, registration: Registration, takeover: Takeover) -> None:
        """Raises `RegistrationConflict` if a live process has registered the id at this agent."""
        found = await self._find(registration.key)
        listing = services.decode_service(registration.instance.service, found) if found is not None else None
        if listing is None or (claim := claim_strength(listing, registration, takeover)) is ClaimStrength.NONE:
            return
        if await self._has_lapsed(listing.registration):
            return
        other = listing.instance
        if claim is ClaimStrength.HELD or await is_reachable(other.address, other.port):
            raise RegistrationConflict(conflict_message(other.key, other.place, registration))

    async def _has_lapsed(self, registration: Registration) -> bool:
        """Returns whether the agent reports that the process has stopped renewing."""
        reply = await self._request("GET", "/agent/checks")
        if reply.status != 200:
            raise _refusal(reply)
        check = _decode(reply, dict[str, services.ConsulCheck]).get(services.ttl_check_id(registration))
        return check is not None and check.status == "critical"

    async def _holder(self, key: Key) -> str | None:
        """Returns the holder that registered the instance at this agent; None: the agent does not list it."""
        found = await self._find(key)
        return (found.meta or {}).get(services.HOLDER, "") if found is not None else None

    async def _find(self, key: Key) -> services.ConsulService | None:
        """Returns the instance as this agent lists it; None if it does not."""
        reply = await self._request("GET", f"/agent/service/{_part(services.consul_id(*key))}")
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise _refusal(reply)
        return _decode(reply, services.ConsulService)

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        """Puts the instance into maintenance mode. Raises `DrainUnacknowledged` after a drain that was to wait."""
        if Key(service, id) not in self._registered:
            raise UnknownInstance(service, id)
        is_drain = body.status == "draining"
        reason = f"{services.DRAINING_REASON}: {body.reason}" if is_drain else body.reason
        path = f"/agent/service/maintenance/{_part(services.consul_id(service, id))}"
        await self._write(path, None, [("enable", "true"), ("reason", reason)])
        if is_drain and body.wait:
            settle_time = min(DRAIN_SETTLE_TIME, body.wait)
            await self._clock.sleep(settle_time)
            raise DrainUnacknowledged(
                f"Consul notifies consumers, but none can acknowledge the drain; it waited {settle_time:g} s"
            )
        return wire.WriteResult(_EPOCH, 0)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.WriteResult:
        """Raises `LeaseLost` if another process has registered the instance since."""
        key = Key(service, id)
        self._registered.pop(key, None)
        current_holder = await self._holder(key)
        if current_holder is None:
            return wire.WriteResult(_EPOCH, 0)
        if current_holder != holder:
            raise LeaseLost(*key)
        await self._write(f"/agent/service/deregister/{_part(services.consul_id(*key))}", None)
        return wire.WriteResult(_EPOCH, 0)

    async def local_address(self) -> str:
        """Returns this host's address on the way to the agent; if the agent is on this host, its advertised address."""
        host, _, port = self._address.host.rpartition(":")
        try:
            address = await outbound_address_to_any([(host.strip("[]"), int(port))], AGENT_TIMEOUT)
        except OSError as error:
            raise RegistryUnavailable(str(error)) from None
        return await self._advertised_address() if address == LOOPBACK else address

    async def _advertised_address(self) -> str:
        """Returns the address that the agent advertises; 127.0.0.1 if the token does not allow that request."""
        reply = await self._request("GET", "/agent/self")
        if reply.status != 200:
            return LOOPBACK
        return str(_decode(reply, _AgentSelf).member.get("Addr") or LOOPBACK)

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        """Does nothing: drains at Consul do not wait for consumers."""

    async def close(self) -> None:
        await self._transport.close()

    async def _write(self, path: str, body: object, params: QueryParams = ()) -> None:
        """Sends a write to the agent. Raises `RegistryUnavailable` and `RegistryRefused`."""
        reply = await self._request("PUT", path, body, params)
        if reply.status != 200:
            raise _refusal(reply)

    async def _request(self, method: str, path: str, body: object = None, params: QueryParams = ()) -> TransportReply:
        """Sends a request within `AGENT_TIMEOUT`. Raises `RegistryUnavailable`."""
        try:
            return await self._send(method, path, body=body, params=params, timeout=AGENT_TIMEOUT)
        except NodeUnreachable as error:
            raise RegistryUnavailable(f"{self._address}: {error}") from None

    async def _send(
        self, method: str, path: str, *, timeout: float, body: object = None, params: QueryParams = ()
    ) -> TransportReply:
        """Sends a request. Raises `NodeUnreachable`."""
        encoded = msgspec.json.encode(body) if body is not None else None
        headers = {**self._headers, "Content-Type": "application/json"} if encoded is not None else self._headers
        url = f"{self._address.url}/v1{path}"
        return await self._transport.request(method, url, timeout=timeout, body=encoded, params=params, headers=headers)


def _resume(position: ViewPosition | None) -> BlockingQuery:
    """Returns a query that resumes from `position` if that is one of Consul's; else a new query."""
    epoch, _, resets = position.epoch.partition("-") if position is not None else ("", "", "")
    if position is None or epoch != _EPOCH or not resets.isdigit():
        return BlockingQuery()
    return BlockingQuery(int(resets), position.revision)


def _part(text: str) -> str:
    return quote(text, safe=":@")


def _decode(reply: TransportReply, kind: type[T]) -> T:
    """Returns the decoded body. Raises `ProtocolViolation`."""
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolViolation(f"the answer is not from Consul: {error}") from None


def _is_missing(reply: TransportReply) -> bool:
    """Returns whether the agent does not know the check: status 404, or, before Consul 1.12, 500 with this text."""
    return reply.status == 404 or (reply.status == 500 and b"does not have associated TTL" in reply.body)


def _refusal(reply: TransportReply) -> RegistryRefused | RegistryUnavailable:
    """Returns the error for an answer that is not 200. 5xx and 429 concern the agent, others the request."""
    text = reply.body[:200].decode(errors="replace").strip() or "without an explanation"
    if reply.status >= 500 or reply.status == 429:
        return RegistryUnavailable(f"the agent answered {reply.status}: {text}")
    return RegistryRefused(reply.status, text)
