"""A Consul agent instead of a registry: services with a ttl check that is kept alive, and blocking queries.

The agent runs the checks that an instance declares. Nobody says that he has heard of a drain: who needs that runs a
registry.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from random import Random
from typing import Any, Final, Literal, TypeVar
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
"""Seconds that a query waits for a change; then it says at least that nothing did."""
QUERY_WAIT_JITTER: Final = 1.0 / 16
"""The share of that by which Consul may answer later, so that those who began together don't end together."""
AGENT_TIMEOUT: Final = 5.0
"""Seconds that the agent has for everything else, and beyond the wait of a query."""
DRAIN_SETTLE_TIME: Final = 1.0
"""Seconds that a drain waits once the agent knows: it tells its servers, which tell those who ask, soon after."""
MAX_CONCURRENT_RENEWALS: Final = 16
"""Leases that are renewed at once; Consul takes one a request."""
MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE = 0.25, 10.0
"""Bounds of the pause after the agent did not answer, in seconds."""

_EPOCH: Final = "consul"
"""Of registrations: whether the agent still knows one is asked at each renewal."""


class _Self(msgspec.Struct, frozen=True, rename="pascal"):
    member: dict[str, Any]


class ConsulSource:
    """Implements `ports.Source`."""

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
        """Nobody is recorded as the author of a service."""
        if len(urls) != 1:
            raise Invalid("url", "must be one agent: consul://127.0.0.1:8500")
        self._place = ConsulAddress.parse(urls[0], os.environ)
        self._transport = Transport(self._place.ssl_context())
        self._headers = {"X-Consul-Token": self._place.token} if self._place.token else {}
        self._clock = clock
        self._rng = rng
        self._listed: dict[Key, Registration] = {}

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follow a service for ever, by asking again as soon as there was an answer."""
        backoff, pace = Backoff(MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE), TokenBucket(QUERIES_PER_SECOND, QUERY_BURST)
        query, shown = _resumed(position()), dict[str, Endpoint]()
        while True:
            await self._clock.sleep(pace.delay(self._clock.now()))
            try:
                index, found, age = await self._asked(service, query.index)
            except (NodeUnreachable, ProtocolViolation, RegistryRefused, RegistryUnavailable) as error:
                yield ConnectionLost(f"{self._place}: {error}")
                # All clients of an agent that ends notice at once, and must not come back together.
                await self._clock.sleep(self._rng.uniform(0.0, backoff.next(self._rng)))
                continue
            backoff.reset()
            if (answered := query.update(index)) is IndexChange.WENT_BACK:
                continue
            at = ViewPosition(f"{_EPOCH}-{query.resets}", query.index)
            if answered is IndexChange.SAME and found == shown:
                yield ServiceUpdate(at, full=False, changed={}, since=at.revision, age=age)
            else:
                shown = found
                yield ServiceUpdate(at, full=True, changed=found, age=age)

    async def _asked(self, service: str, index: int) -> tuple[int, dict[str, Endpoint], float]:
        """The index that came, the endpoints, and how old they are in seconds.

        Raises `Unreachable`, `ProtocolViolation`, `RegistryRefused` and `RegistryUnavailable`.
        """
        blocking = [("index", str(index)), ("wait", f"{QUERY_WAIT:g}s")] if index else []
        blocking += [("dc", self._place.dc)] if self._place.dc else []
        timeout = AGENT_TIMEOUT + (QUERY_WAIT * (1 + QUERY_WAIT_JITTER) if index else 0.0)
        reply = await self._once("GET", f"/health/service/{_part(service)}", params=blocking, timeout=timeout)
        if reply.status != 200:
            raise _refusal(reply)
        try:
            came = int(reply.headers["x-consul-index"])
            age = int(reply.headers.get("x-consul-lastcontact") or 0) / 1000
        except (KeyError, ValueError):
            raise ProtocolViolation("an answer without an index, which is none of Consul's") from None
        return came, services.decode_entries(service, _decoded(reply, list[services.HealthEntry])), age

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        """Raises `Invalid` for what Consul can't list or check, and `Taken`."""
        registration = body.to_registration(service, id, "")
        said = services.registration_body(registration)
        await self._must_be_free(registration, body.takeover)
        await self._told("/agent/service/register", said, [("replace-existing-checks", "true")])
        self._listed[registration.key] = registration
        return wire.WriteResult(_EPOCH, 0, registration.ttl)

    async def renew(self, leases: Sequence[wire.LeaseBody], node_timeout: float) -> wire.RenewalResult:
        lost: list[wire.LostLease] = []
        try:
            async with asyncio.timeout(max(1.0, 2 * node_timeout)):
                for start in range(0, len(leases), MAX_CONCURRENT_RENEWALS):
                    some = leases[start : start + MAX_CONCURRENT_RENEWALS]
                    reasons = await asyncio.gather(*(self._renewed(lease) for lease in some))
                    found = zip(some, reasons, strict=True)
                    lost += [wire.LostLease(lease.service, lease.id, reason) for lease, reason in found if reason]
        except TimeoutError:
            raise RegistryUnavailable(f"{self._place} does not answer in time") from None
        return wire.RenewalResult(_EPOCH, 0, len(leases) - len(lost), lost)

    async def _renewed(self, lease: wire.LeaseBody) -> Literal["unknown", "superseded"] | None:
        """Why it was not; None: it was."""
        listed = self._listed.get(Key(lease.service, lease.id))
        if listed is None:
            return "unknown"
        if listed.ttl is not None:
            reply = await self._answer("PUT", f"/agent/check/pass/{_part(services.ttl_check_id(listed))}")
            if reply.status == 200:
                return None
            if not _is_missing(reply):
                raise _refusal(reply)
        holder = await self._holder(listed.key)
        if holder is None:
            return "unknown"
        if holder != listed.holder:
            return "superseded"
        return None if listed.ttl is None else "unknown"

    async def _must_be_free(self, registration: Registration, takeover: Takeover) -> None:
        """Raises `Taken` if another process has registered the id at this agent, and lives."""
        found = await self._found(registration.key)
        listed = services.decode_service(registration.instance.service, found) if found is not None else None
        if listed is None or (how := claim_strength(listed, registration, takeover)) is ClaimStrength.NONE:
            return
        if await self._lapsed(listed.registration):
            return
        other = listed.instance
        if how is ClaimStrength.HELD or await is_reachable(other.address, other.port):
            raise RegistrationConflict(conflict_message(other.key, other.place, registration))

    async def _lapsed(self, registration: Registration) -> bool:
        """Whether the agent says that the process has stopped renewing."""
        reply = await self._answer("GET", "/agent/checks")
        if reply.status != 200:
            raise _refusal(reply)
        check = _decoded(reply, dict[str, services.ConsulCheck]).get(services.ttl_check_id(registration))
        return check is not None and check.status == "critical"

    async def _holder(self, key: Key) -> str | None:
        """Who registered the instance at this agent last; None: it is not there."""
        found = await self._found(key)
        return (found.meta or {}).get(services.HOLDER, "") if found is not None else None

    async def _found(self, key: Key) -> services.ConsulService | None:
        """The instance as this agent lists it; None: it does not."""
        reply = await self._answer("GET", f"/agent/service/{_part(services.consul_id(*key))}")
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise _refusal(reply)
        return _decoded(reply, services.ConsulService)

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        """Raises `DrainUnacknowledged` after a drain that was to be waited for."""
        if Key(service, id) not in self._listed:
            raise UnknownInstance(service, id)
        draining = body.status == "draining"
        reason = f"{services.DRAINING_REASON}: {body.reason}" if draining else body.reason
        path = f"/agent/service/maintenance/{_part(services.consul_id(service, id))}"
        await self._told(path, None, [("enable", "true"), ("reason", reason)])
        if draining and body.wait:
            settle = min(DRAIN_SETTLE_TIME, body.wait)
            await self._clock.sleep(settle)
            raise DrainUnacknowledged(
                f"Consul tells consumers, and none says when it heard; {settle:g} s were waited for"
            )
        return wire.WriteResult(_EPOCH, 0)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.WriteResult:
        """Raises `LeaseLost` if somebody else registered it since."""
        key = Key(service, id)
        self._listed.pop(key, None)
        there = await self._holder(key)
        if there is None:
            return wire.WriteResult(_EPOCH, 0)
        if there != holder:
            raise LeaseLost(*key)
        await self._told(f"/agent/service/deregister/{_part(services.consul_id(*key))}", None)
        return wire.WriteResult(_EPOCH, 0)

    async def local_address(self) -> str:
        """The address that the agent has for its host, if that is ours; else the address of this host that faces it."""
        host, _, port = self._place.host.rpartition(":")
        try:
            address = await outbound_address_to_any([(host.strip("[]"), int(port))], AGENT_TIMEOUT)
        except OSError as error:
            raise RegistryUnavailable(str(error)) from None
        return await self._advertised() if address == LOOPBACK else address

    async def _advertised(self) -> str:
        """What the agent says; over a token that may not ask, loopback."""
        reply = await self._answer("GET", "/agent/self")
        if reply.status != 200:
            return LOOPBACK
        return str(_decoded(reply, _Self).member.get("Addr") or LOOPBACK)

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        """Nobody here waits for consumers."""

    async def close(self) -> None:
        await self._transport.close()

    async def _told(self, path: str, body: object, params: QueryParams = ()) -> None:
        """A write at the agent. Raises `RegistryUnavailable` and `RegistryRefused`."""
        reply = await self._answer("PUT", path, body, params)
        if reply.status != 200:
            raise _refusal(reply)

    async def _answer(self, method: str, path: str, body: object = None, params: QueryParams = ()) -> TransportReply:
        """Raises `RegistryUnavailable`."""
        try:
            return await self._once(method, path, body=body, params=params, timeout=AGENT_TIMEOUT)
        except NodeUnreachable as error:
            raise RegistryUnavailable(f"{self._place}: {error}") from None

    async def _once(
        self, method: str, path: str, *, timeout: float, body: object = None, params: QueryParams = ()
    ) -> TransportReply:
        """Raises `Unreachable`."""
        encoded = msgspec.json.encode(body) if body is not None else None
        headers = {**self._headers, "Content-Type": "application/json"} if encoded is not None else self._headers
        url = f"{self._place.url}/v1{path}"
        return await self._transport.request(method, url, timeout=timeout, body=encoded, params=params, headers=headers)


def _resumed(known: ViewPosition | None) -> BlockingQuery:
    """A query that begins at what is known from earlier, of Consul."""
    epoch, _, histories = known.epoch.partition("-") if known is not None else ("", "", "")
    if known is None or epoch != _EPOCH or not histories.isdigit():
        return BlockingQuery()
    return BlockingQuery(int(histories), known.revision)


def _part(text: str) -> str:
    return quote(text, safe=":@")


def _decoded(reply: TransportReply, kind: type[T]) -> T:
    """Raises `ProtocolViolation`."""
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolViolation(f"an answer that is none of Consul's: {error}") from None


def _is_missing(reply: TransportReply) -> bool:
    """Whether the agent does not know the check: 404, or, before Consul 1.12, 500 with these words."""
    return reply.status == 404 or (reply.status == 500 and b"does not have associated TTL" in reply.body)


def _refusal(reply: TransportReply) -> RegistryRefused | RegistryUnavailable:
    """What an answer means that is none: 5xx and 429 say nothing about what was asked for."""
    text = reply.body[:200].decode(errors="replace").strip() or "without a word"
    if reply.status >= 500 or reply.status == 429:
        return RegistryUnavailable(f"the agent answered {reply.status}: {text}")
    return RegistryRefused(reply.status, text)
