"""Straight on etcd, without a registry: instances are keys under leases, in the format of etcd's gRPC naming packages.

Go programs that dial `etcd:///my-service` find what is registered here, and what they register is found. Nobody checks
health but the lease, and nobody says that he has heard of a drain: who needs that runs a registry.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from random import Random
from typing import Final, Literal

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import DrainUnacknowledged, RegistryRefused, RegistryUnavailable
from adsum.client.local_address import outbound_address_to_any
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.registration.reachability import is_reachable
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
"""Seconds that a drain waits after the key is gone: watchers hear of it within milliseconds, but don't say so."""
REFRESH_INTERVAL: Final = 3.0
"""Seconds between two words that a quiet service is as it was."""
LOOKUP_TIMEOUT: Final = 5.0
"""Seconds that looking up the name of a member may take."""
MAX_CONCURRENT_RENEWALS: Final = 16
"""Leases that are renewed at once."""
MAX_REGISTER_TRIES: Final = 3
"""How often a registration is tried while others change the same keys; then it is tried again later."""
MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE = 0.25, 5.0
"""Bounds of the pause before everything is read anew, in seconds."""


_EPOCH: Final = "etcd"
"""Of registrations, whose revisions say nothing: each is asked after by itself at each renewal."""
_ANOTHER: Final = "etcd was wiped or restored; everything is read anew"
_Reason = Literal["unknown", "superseded"]
_Shown = tuple[int, Endpoint | None]
"""What a key stands for, and the revision at which it was written."""


@dataclass(slots=True)
class _Listed:
    """What is registered here."""

    instance: Instance
    holder: str
    lease: int
    """0: it has no lease."""
    drained: bool = False


class EtcdSource:
    """Implements `ports.Source`."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        actor: str,
        consumer: ConsumerIdentity | None = None,
        clock: Clock,
        rng: Random,
    ) -> None:
        """Nobody is recorded as the author of a key."""
        if len(urls) != 1:
            raise Invalid("url", "must be one address that names every member: etcd://h1:2379,h2:2379")
        self._place = EtcdAddress.parse(urls[0])
        self.cache_fallback_delay = HEDGE_DELAY * len(self._place.hosts)
        self._etcd = EtcdClient(self._place, rng)
        self._clock = clock
        self._rng = rng
        self._listed: dict[Key, _Listed] = {}
        self._history = ClusterHistory()

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follow a service for ever: read it whole, then every change; and whole again after each lost connection."""
        backoff = Backoff(MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE)
        while True:
            if (known := position()) is not None:
                self._history.observe(*known)
            try:
                async with aclosing(self._connection(service)) as groups:
                    async for group in groups:
                        backoff.reset()
                        yield group
                why = "etcd ended the watch"
            except EtcdError as error:
                why = str(error)
            yield ConnectionLost(f"{self._place}: {why}")
            await self._clock.sleep(self._rng.uniform(0.0, backoff.next(self._rng)))

    async def _connection(self, service: str) -> AsyncGenerator[ServiceUpdate, None]:
        """The groups of one connection, in one epoch. Raises `EtcdError`."""
        directory = naming.directory(self._place.prefix, service)
        asked = self._history.begin_read()
        found = await self._etcd.read_all(directory)
        epoch, at = self._history.end_read(asked, found.header), found.header.revision
        if epoch is None:
            raise EtcdUnreachable(_ANOTHER)  # Meanwhile: whose answer this is can't be told.
        keys = {each.key: self._shown(service, each) for each in found.key_values}
        shown = _by_id(keys)
        yield ServiceUpdate(ViewPosition(epoch, at), full=True, changed=shown)
        told_at = self._clock.now()
        async with aclosing(watch(self._etcd, directory, at + 1, self._clock, self._rng)) as told:
            async for each in told:
                if isinstance(each, WatchInterrupted | ResyncRequired):
                    raise EtcdUnreachable(each.reason)
                if epoch != self._history.epoch:
                    raise EtcdUnreachable(_ANOTHER)
                if isinstance(each, WatchProgress):
                    self._history.observe(epoch, each.header.revision)
                    if self._clock.now() - told_at < REFRESH_INTERVAL:
                        continue
                    since = at  # And there it stays: see `WatchProgress`.
                else:
                    for event in each.events:
                        keys.pop(event.key, None)
                        if event.key_value is not None:
                            keys[event.key] = self._shown(service, event.key_value)
                    since, at = at, each.revision
                    self._history.observe(epoch, at)
                told_at = self._clock.now()
                before, shown = shown, _by_id(keys)
                changed = {id: endpoint for id, endpoint in shown.items() if before.get(id) != endpoint}
                gone = frozenset(before.keys() - shown.keys())
                yield ServiceUpdate(ViewPosition(epoch, at), full=False, changed=changed, removed=gone, since=since)

    def _shown(self, service: str, found: KeyValue) -> _Shown:
        instance = naming.decode(service, found.value)
        if instance is None:
            return found.revision, None
        return found.revision, Endpoint(instance, Status.PASSING, naming.process(found.value))

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        """Raises `Invalid` for checks: there is nobody to run them; and `Taken`."""
        if body.checks:
            raise Invalid("checks", "can't be run without a registry; leave them out, or register with one")
        registration = body.to_registration(service, id, "")
        instance, key = registration.instance, Key(service, id)
        ttl = None if registration.ttl is None else max(MIN_ETCD_TTL, registration.ttl)
        before = self._listed.get(key)
        try:
            lease = 0 if ttl is None else await self._etcd.grant(math.ceil(ttl))
            await self._put(registration, lease, body.takeover)
            if before is not None and (before.lease or before.instance.authority != instance.authority):
                with suppress(EtcdError):  # It ends by itself.
                    await self._take_out(before)
        except EtcdError as error:
            raise _translated(error) from None
        return wire.WriteResult(_EPOCH, 0, ttl)

    async def _put(self, registration: Registration, lease: int, takeover: Takeover) -> None:
        """Put its key, and delete those of processes that give way. Raises `EtcdError` and `Taken`."""
        instance = registration.instance
        mine = self._key(instance)
        value = naming.encode(instance, holder=registration.holder)
        for _ in range(MAX_REGISTER_TRIES):
            found = (await self._etcd.read_all(naming.directory(self._place.prefix, instance.service))).key_values
            rivals = [each for each in found if await self._gives_way(each, registration, takeover)]
            # Noted before it is done: a put that is not answered may be done all the same.
            self._listed[registration.key] = _Listed(instance, registration.holder, lease)
            conditions = [Unchanged(each.key, each.revision) for each in rivals]
            if takeover is Takeover.NEVER and all(each.key != mine for each in found):
                conditions.append(Unchanged(mine, 0))
            removals = [Delete(each.key) for each in rivals if each.key != mine]
            if (await self._etcd.commit(conditions, [*removals, Put(mine, value, lease)])).succeeded:
                return
        raise EtcdUnreachable("other processes keep registering at the same place")

    async def _gives_way(self, found: KeyValue, registration: Registration, takeover: Takeover) -> bool:
        """Whether a key is another process's that gives way. False: it has nothing to do with us. Raises `Taken`.

        A key under a lease is a process that renews; etcd takes it away when that lapses.
        """
        instance = registration.instance
        other = naming.decode(instance.service, found.value)
        holder = naming.holder(found.value)
        if other is None or not holder or (holder == registration.holder and other.id == instance.id):
            return False
        if found.key == self._key(instance):
            other = replace(other, scheme=instance.scheme)  # A key has room for one instance.
            if process_name(holder) == registration.identity.holder and takeover is Takeover.NEVER:
                raise RegistrationConflict(conflict_message(other.key, other.place, registration))
        elif other.id != instance.id:
            return False
        listed = Listing(Registration(other, holder=holder), Provenance(Cause.REGISTERED, ""))
        how = claim_strength(listed, registration, takeover)
        if how is ClaimStrength.HELD or (
            how is ClaimStrength.IF_REACHABLE and await is_reachable(other.address, other.port)
        ):
            raise RegistrationConflict(conflict_message(other.key, other.place, registration))
        return True

    async def renew(self, leases: Sequence[wire.LeaseBody], node_timeout: float) -> wire.RenewalResult:
        lost: list[wire.LostLease] = []
        try:
            async with asyncio.timeout(max(1.0, 2 * node_timeout)):
                for start in range(0, len(leases), MAX_CONCURRENT_RENEWALS):
                    some = leases[start : start + MAX_CONCURRENT_RENEWALS]
                    reasons = await asyncio.gather(*map(self._renewed, some))
                    found = zip(some, reasons, strict=True)
                    lost += [wire.LostLease(lease.service, lease.id, reason) for lease, reason in found if reason]
        except EtcdError as error:
            raise _translated(error) from None
        except TimeoutError:
            raise RegistryUnavailable(f"{self._place} does not answer in time") from None
        return wire.RenewalResult(_EPOCH, 0, len(leases) - len(lost), lost)

    async def _renewed(self, lease: wire.LeaseBody) -> _Reason | None:
        """Why it was not; None: it was, or need not be. Raises `EtcdError`."""
        key = Key(lease.service, lease.id)
        listed = self._listed.get(key)
        if listed is None:
            return "unknown"
        if listed.holder != lease.holder:
            return "superseded"
        if listed.drained:
            return None
        reason = await self._asked_after(listed)
        ended = listed.drained or self._listed.get(key) is not listed
        return None if ended else reason

    async def _asked_after(self, listed: _Listed) -> _Reason | None:
        alive = True
        try:
            if listed.lease:
                await self._etcd.keep_alive(listed.lease)
        except LeaseGone:
            alive = False
        found = await self._etcd.get(self._key(listed.instance))
        if found is not None and not _is_of(found, listed):
            return "superseded"
        return None if found is not None and alive else "unknown"

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        """A drain takes the key away. Raises `DrainUnacknowledged` after a drain that was to be waited for, `LeaseLost` if
        it was registered anew in this process.
        """
        if body.status != "draining":
            raise Invalid("status", f"{body.status} needs a registry; straight on etcd an instance can only be drained")
        listed = self._listed.get(Key(service, id))
        if listed is None:
            raise UnknownInstance(service, id)
        if body.holder and body.holder != listed.holder:
            raise LeaseLost(service, id)
        listed.drained = True  # First: a renewal that is under way must not find it lost and register it again.
        try:
            await self._take_out(listed)
        except EtcdError as error:
            raise _translated(error) from None
        if body.wait:
            settle = min(DRAIN_SETTLE_TIME, body.wait)
            await self._clock.sleep(settle)
            raise DrainUnacknowledged(
                f"etcd tells consumers, and none says when it has heard; {settle:g} s were waited for"
            )
        return wire.WriteResult(_EPOCH, 0)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.WriteResult:
        """What somebody else registered since stays. Raises `LeaseLost` if that was done in this process."""
        key = Key(service, id)
        listed = self._listed.get(key)
        if listed is None:
            return wire.WriteResult(_EPOCH, 0)
        if listed.holder != holder:
            raise LeaseLost(service, id)
        try:
            await self._take_out(listed)
        except EtcdError as error:
            raise _translated(error) from None
        if self._listed.get(key) is listed:
            del self._listed[key]
        return wire.WriteResult(_EPOCH, 0)

    async def _take_out(self, listed: _Listed) -> None:
        """Only what is ours: a key that somebody else took over hangs on another lease. Raises `EtcdError`."""
        if listed.lease:
            await self._etcd.revoke(listed.lease)
            return
        key = self._key(listed.instance)
        found = await self._etcd.get(key)
        if found is not None and _is_of(found, listed):
            await self._etcd.commit([Unchanged(key, found.revision)], [Delete(key)])

    async def local_address(self) -> str:
        """The address of this host on the way to a member on another host; 127.0.0.1 if all are on this one."""
        try:
            return await outbound_address_to_any(self._place.host_ports, LOOKUP_TIMEOUT)
        except OSError as error:
            raise RegistryUnavailable(str(error)) from None

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        """Nobody here waits for consumers."""

    async def close(self) -> None:
        await self._etcd.close()

    def _key(self, instance: Instance) -> bytes:
        return naming.key(self._place.prefix, instance)


def _is_of(found: KeyValue, listed: _Listed) -> bool:
    """Whether a key says of its place what was registered here."""
    shown = naming.decode(listed.instance.service, found.value)
    return naming.holder(found.value) == listed.holder and shown is not None and shown.id == listed.instance.id


def _by_id(keys: dict[bytes, _Shown]) -> dict[str, Endpoint]:
    """What is shown, by id; of two keys with one id the one that was written last."""
    written = sorted(keys.values(), key=itemgetter(0))
    return {endpoint.id: endpoint for _, endpoint in written if endpoint is not None}


def _translated(error: EtcdError) -> AdsumError:
    if isinstance(error, EtcdUnreachable):
        return RegistryUnavailable(str(error))
    return RegistryRefused(403, str(error))
