"""The source for etcd, without a registry: instances are keys under leases, as etcd's gRPC naming packages write them.

Go programs that dial `etcd:///my-service` find what is registered here, and what they register is found. There is no
health checking but the lease, and consumers can't acknowledge a drain; both need a registry.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from operator import itemgetter
from random import Random
from typing import Final

from msgspec.structs import replace

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import DrainUnacknowledged, RegistryRefused, RegistryUnavailable
from adsum.client.local_address import outbound_address_to_any
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.registration.reachability import is_reachable
from adsum.client.sources.single_renewals import LossReason, renew_singly
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.core.backoff import Backoff
from adsum.core.catalog.takeover import ClaimStrength, Takeover, claim_strength, conflict_message
from adsum.core.errors import AdsumError, Invalid, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.identity import process_name
from adsum.core.model import Endpoint, Instance, Key, Listing, Registration, Status
from adsum.core.provenance import Cause, Provenance
from adsum.etcd import naming
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.cluster_history import ClusterHistory
from adsum.etcd.errors import EtcdError, EtcdUnreachable, LeaseGone
from adsum.etcd.values import Delete, KeyValue, Put, Unchanged
from adsum.etcd.watch import ResyncRequired, WatchInterrupted, WatchProgress, watch
from adsum.ports import Clock

MIN_ETCD_TTL: Final = 2.0
"""Seconds; etcd grants no shorter lease."""
DRAIN_SETTLE_TIME: Final = 1.0
"""Seconds that a drain waits after the key is deleted: watchers receive that within milliseconds, unacknowledged."""
REFRESH_INTERVAL: Final = 3.0
"""Seconds between two updates that only confirm the view of a quiet service."""
LOOKUP_TIMEOUT: Final = 5.0
"""Seconds that the look-up of a member's name may take."""
MAX_REGISTER_TRIES: Final = 3
"""Tries of a registration while others change the same keys; after that the registrar tries again later."""
MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE = 0.25, 5.0
"""Seconds, bounds of the pause before the service is read again."""

_EPOCH: Final = "etcd"
"""The epoch of registrations. It never changes: each renewal checks whether the key is still there."""
_ANOTHER_HISTORY: Final = "etcd was wiped or restored; reading everything again"
_KeyState = tuple[int, Endpoint | None]
"""The revision at which a key was written, and the endpoint that it stands for, if it is valid."""


@dataclass(slots=True)
class _Registered:
    """An instance that this source has registered."""

    instance: Instance
    holder: str
    lease: int
    """0: it has no lease."""
    drained: bool = False


class EtcdSource:
    """Implements `Source` with etcd. etcd records no author, so `actor` is not used."""

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
            raise Invalid("url", "must be one address with every member, such as etcd://h1:2379,h2:2379")
        self._address = EtcdAddress.parse(urls[0])
        self.cache_fallback_delay = HEDGE_DELAY * len(self._address.hosts)
        self._etcd = EtcdClient(self._address, rng)
        self._clock = clock
        self._rng = rng
        self._registered: dict[Key, _Registered] = {}
        self._history = ClusterHistory()

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follows a service: reads it whole, then every change, and reads it whole again after each lost connection."""
        backoff = Backoff(MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE)
        while True:
            if (resumed := position()) is not None:
                self._history.observe(*resumed)
            try:
                async with aclosing(self._connection(service)) as updates:
                    async for update in updates:
                        backoff.reset()
                        yield update
                reason = "etcd ended the watch"
            except EtcdError as error:
                reason = str(error)
            yield ConnectionLost(f"{self._address}: {reason}")
            await self._clock.sleep(self._rng.uniform(0.0, backoff.next(self._rng)))

    async def _connection(self, service: str) -> AsyncGenerator[ServiceUpdate, None]:
        """Yields the updates of one connection, in one epoch. Raises `EtcdError`."""
        directory = naming.directory(self._address.prefix, service)
        read_start = self._history.begin_read()
        result = await self._etcd.read_all(directory)
        epoch, at = self._history.end_read(read_start, result.header), result.header.revision
        if epoch is None:
            # The history changed during the read, so the answer can't be assigned to one.
            raise EtcdUnreachable(_ANOTHER_HISTORY)
        keys = {key_value.key: self._key_state(service, key_value) for key_value in result.key_values}
        current = _by_id(keys)
        yield ServiceUpdate(ViewPosition(epoch, at), full=True, changed=current)
        updated_at = self._clock.now()
        async with aclosing(watch(self._etcd, directory, at + 1, self._clock, self._rng)) as watch_events:
            async for watch_event in watch_events:
                if isinstance(watch_event, WatchInterrupted | ResyncRequired):
                    raise EtcdUnreachable(watch_event.reason)
                if epoch != self._history.epoch:
                    raise EtcdUnreachable(_ANOTHER_HISTORY)
                if isinstance(watch_event, WatchProgress):
                    self._history.observe(epoch, watch_event.header.revision)
                    if self._clock.now() - updated_at < REFRESH_INTERVAL:
                        continue
                    since = at  # The position stays: see `WatchProgress`.
                else:
                    for key_event in watch_event.events:
                        keys.pop(key_event.key, None)
                        if key_event.key_value is not None:
                            keys[key_event.key] = self._key_state(service, key_event.key_value)
                    since, at = at, watch_event.revision
                    self._history.observe(epoch, at)
                updated_at = self._clock.now()
                before, current = current, _by_id(keys)
                changed = {id: endpoint for id, endpoint in current.items() if before.get(id) != endpoint}
                removed = frozenset(before.keys() - current.keys())
                yield ServiceUpdate(ViewPosition(epoch, at), full=False, changed=changed, removed=removed, since=since)

    def _key_state(self, service: str, key_value: KeyValue) -> _KeyState:
        instance = naming.decode(service, key_value.value)
        if instance is None:
            return key_value.revision, None
        return key_value.revision, Endpoint(instance, Status.PASSING, naming.process(key_value.value))

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        """Raises `Invalid` for checks, which etcd can't run, and `RegistrationConflict`."""
        if body.checks:
            raise Invalid("checks", "can't be run without a registry; leave them out, or use a registry")
        registration = body.to_registration(service, id, "")
        instance, key = registration.instance, Key(service, id)
        ttl = None if registration.ttl is None else max(MIN_ETCD_TTL, registration.ttl)
        before = self._registered.get(key)
        try:
            lease = 0 if ttl is None else await self._etcd.grant(math.ceil(ttl))
            await self._put(registration, lease, body.takeover)
            if before is not None and (before.lease or before.instance.authority != instance.authority):
                with suppress(EtcdError):  # The earlier lease ends by itself.
                    await self._delete(before)
        except EtcdError as error:
            raise _translate(error) from None
        return wire.WriteResult(_EPOCH, 0, ttl)

    async def _put(self, registration: Registration, lease: int, takeover: Takeover) -> None:
        """Puts the key of the instance, and deletes the keys of processes that give way.

        Raises `EtcdError` and `RegistrationConflict`.
        """
        instance = registration.instance
        own_key = self._key(instance)
        value = naming.encode(instance, holder=registration.holder)
        directory = naming.directory(self._address.prefix, instance.service)
        for _ in range(MAX_REGISTER_TRIES):
            found = (await self._etcd.read_all(directory)).key_values
            rivals = [other for other in found if await self._gives_way(other, registration, takeover)]
            # Noted before the write: a put without an answer may have taken effect.
            self._registered[registration.key] = _Registered(instance, registration.holder, lease)
            conditions = [Unchanged(rival.key, rival.revision) for rival in rivals]
            if takeover is Takeover.NEVER and all(other.key != own_key for other in found):
                conditions.append(Unchanged(own_key, 0))
            removals = [Delete(rival.key) for rival in rivals if rival.key != own_key]
            if (await self._etcd.commit(conditions, [*removals, Put(own_key, value, lease)])).succeeded:
                return
        raise EtcdUnreachable("other processes keep registering at the same place")

    async def _gives_way(self, key_value: KeyValue, registration: Registration, takeover: Takeover) -> bool:
        """Returns True if the key belongs to another process that gives way, False if it does not concern us.

        Raises `RegistrationConflict` if that process does not give way. The process of a key under a lease is alive:
        etcd deletes the key when the lease lapses.
        """
        instance = registration.instance
        other = naming.decode(instance.service, key_value.value)
        holder = naming.holder(key_value.value)
        if other is None or not holder or (holder == registration.holder and other.id == instance.id):
            return False
        if key_value.key == self._key(instance):
            other = replace(other, scheme=instance.scheme)  # A key has room for one instance.
            if process_name(holder) == registration.identity.holder and takeover is Takeover.NEVER:
                raise RegistrationConflict(conflict_message(other.key, other.place, registration))
        elif other.id != instance.id:
            return False
        listing = Listing(Registration(other, holder=holder), Provenance(Cause.REGISTERED, ""))
        claim = claim_strength(listing, registration, takeover)
        if claim is ClaimStrength.HELD or (
            claim is ClaimStrength.IF_REACHABLE and await is_reachable(other.address, other.port)
        ):
            raise RegistrationConflict(conflict_message(other.key, other.place, registration))
        return True

    async def renew(self, leases: Sequence[wire.LeaseBody], node_timeout: float) -> wire.RenewalResult:
        try:
            lost = await renew_singly(leases, self._renew, node_timeout)
        except EtcdError as error:
            raise _translate(error) from None
        except TimeoutError:
            raise RegistryUnavailable(f"{self._address} did not answer in time") from None
        return wire.RenewalResult(_EPOCH, 0, len(leases) - len(lost), lost)

    async def _renew(self, lease: wire.LeaseBody) -> LossReason | None:
        """Renews one lease. Returns why it is lost; None: it was renewed, or need not be. Raises `EtcdError`."""
        key = Key(lease.service, lease.id)
        registered = self._registered.get(key)
        if registered is None:
            return "unknown"
        if registered.holder != lease.holder:
            return "superseded"
        if registered.drained:
            return None
        reason = await self._keep_alive(registered)
        ended = registered.drained or self._registered.get(key) is not registered
        return None if ended else reason

    async def _keep_alive(self, registered: _Registered) -> LossReason | None:
        alive = True
        try:
            if registered.lease:
                await self._etcd.keep_alive(registered.lease)
        except LeaseGone:
            alive = False
        found = await self._etcd.get(self._key(registered.instance))
        if found is not None and not _belongs_to(found, registered):
            return "superseded"
        return None if found is not None and alive else "unknown"

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        """Drains an instance by deleting its key; no other status is possible.

        Raises `DrainUnacknowledged` after a drain that was to wait, and `LeaseLost` if the instance was registered
        again in this process.
        """
        if body.status != "draining":
            raise Invalid("status", f"{body.status} needs a registry; on etcd alone an instance can only be drained")
        registered = self._registered.get(Key(service, id))
        if registered is None:
            raise UnknownInstance(service, id)
        if body.holder and body.holder != registered.holder:
            raise LeaseLost(service, id)
        registered.drained = True  # First, so that a renewal that is under way does not register it again.
        try:
            await self._delete(registered)
        except EtcdError as error:
            raise _translate(error) from None
        if body.wait:
            settle_time = min(DRAIN_SETTLE_TIME, body.wait)
            await self._clock.sleep(settle_time)
            raise DrainUnacknowledged(
                f"etcd notifies consumers, but none can acknowledge the drain; it waited {settle_time:g} s"
            )
        return wire.WriteResult(_EPOCH, 0)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.WriteResult:
        """Deletes the key, unless another process has taken it over.

        Raises `LeaseLost` if the instance was registered again in this process.
        """
        key = Key(service, id)
        registered = self._registered.get(key)
        if registered is None:
            return wire.WriteResult(_EPOCH, 0)
        if registered.holder != holder:
            raise LeaseLost(service, id)
        try:
            await self._delete(registered)
        except EtcdError as error:
            raise _translate(error) from None
        if self._registered.get(key) is registered:
            del self._registered[key]
        return wire.WriteResult(_EPOCH, 0)

    async def _delete(self, registered: _Registered) -> None:
        """Deletes the key if it is still ours: a key that another process took over has another lease.

        Raises `EtcdError`.
        """
        if registered.lease:
            await self._etcd.revoke(registered.lease)
            return
        key = self._key(registered.instance)
        found = await self._etcd.get(key)
        if found is not None and _belongs_to(found, registered):
            await self._etcd.commit([Unchanged(key, found.revision)], [Delete(key)])

    async def local_address(self) -> str:
        """Returns this host's address on the way to a member on another host; 127.0.0.1 if all are on this host."""
        try:
            return await outbound_address_to_any(self._address.host_ports, LOOKUP_TIMEOUT)
        except OSError as error:
            raise RegistryUnavailable(str(error)) from None

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        """Does nothing: drains at etcd do not wait for consumers."""

    async def close(self) -> None:
        await self._etcd.close()

    def _key(self, instance: Instance) -> bytes:
        return naming.key(self._address.prefix, instance)


def _belongs_to(key_value: KeyValue, registered: _Registered) -> bool:
    """Returns whether a key holds what was registered here."""
    instance = naming.decode(registered.instance.service, key_value.value)
    same_id = instance is not None and instance.id == registered.instance.id
    return same_id and naming.holder(key_value.value) == registered.holder


def _by_id(keys: dict[bytes, _KeyState]) -> dict[str, Endpoint]:
    """Returns the endpoints by id; of two keys with one id the one that was written last."""
    in_order = sorted(keys.values(), key=itemgetter(0))
    return {endpoint.id: endpoint for _, endpoint in in_order if endpoint is not None}


def _translate(error: EtcdError) -> AdsumError:
    if isinstance(error, EtcdUnreachable):
        return RegistryUnavailable(str(error))
    return RegistryRefused(403, str(error))
