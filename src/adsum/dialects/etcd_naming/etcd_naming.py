"""etcd's gRPC naming in both directions, between keys in etcd and the catalog.

Usable instances of the catalog are published as keys, which Go programs resolve as `etcd:///my-service`. Instances that
other programs register by such keys ("external") are listed in the catalog. The node that keeps a service does both for
it. Keys that a registry published are marked, and are never listed; instances that come from keys are held by `HOLDER`,
and are never published. So nothing goes in circles.

`NamingAccess` says what may be published and listed. Instances that come from keys are owned by `etcd-naming`: only a
caller that may operate the service can change them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import aclosing, suppress
from random import Random
from typing import Final

from msgspec.structs import replace

from adsum.consumers import Consumer
from adsum.core.backoff import Backoff
from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import AdsumError, CatalogFull, Invalid, NotOwner, RegistrationConflict
from adsum.core.identity import holder_digest
from adsum.core.model import Instance, Key, Listing, Registration, Status, freeze
from adsum.core.nodes.sharding import shard_of
from adsum.dialects.etcd_naming.naming_access import NamingAccess, listing_refusal, may_publish
from adsum.etcd import naming
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdUnreachable
from adsum.etcd.session import EtcdSession
from adsum.etcd.values import Delete, KeyValue, Put
from adsum.etcd.watch import ResyncRequired, WatchInterrupted, WatchProgress, watch
from adsum.ports import Clock, Sharding
from adsum.registry import Registry
from adsum.watches import Watch

HOLDER: Final = "etcd-naming"
"""The holder of instances that are listed because of a key, and the actor of their changes."""
ORIGIN_KEY: Final = "origin"
"""The metadata key that marks such instances."""
LEASE_TTL: Final = 60
"""Seconds for which published keys outlive the node that published them. Programs that resolve them keep their
instances while a registry restarts, and lose them if it does not come back."""
SYNC_INTERVAL: Final = 1.0
"""Seconds after which the services that this node keeps are checked again without a change."""
PROPAGATION_DELAY: Final = 0.1
"""Seconds from a change of keys until the programs that resolve them count as routing by it. They get it within
milliseconds, and don't acknowledge."""
MAX_TRANSACTION_KEYS: Final = 100
"""Keys that one transaction sets and deletes; more take several transactions."""
MAX_LOGGED_KEYS: Final = 1_000
"""Keys for which the log says why they are not listed, each once; further keys are not logged."""
MAX_LOGGED_KEY_LENGTH: Final = 200
"""Characters of a key in the log; the rest is cut off."""
MIN_BACKOFF, MAX_BACKOFF = 0.2, 5.0
"""Seconds of pause after etcd or the store has failed."""
PUBLISHED_STATUSES: Final = frozenset({Status.PASSING, Status.WARNING})

_log = logging.getLogger("adsum.etcd-naming")


class EtcdNaming:
    """Keeps the keys below one prefix and the catalog in step, from `start`, when the catalog is loaded, to `close`."""

    def __init__(
        self,
        etcd: EtcdClient,
        prefix: str,
        registry: Registry,
        sharding: Sharding,
        check_address: Callable[[str], None],
        access: NamingAccess,
        clock: Clock,
        rng: Random,
    ) -> None:
        """`check_address` raises `Invalid` for an address that no instance may have."""
        self._check_address = check_address
        self._etcd = etcd
        self._prefix = prefix
        self._registry = registry
        self._sharding = sharding
        self._access = access
        self._principal = access.principal
        self._clock = clock
        self._rng = rng
        self._session = EtcdSession(etcd, LEASE_TTL, self._on_lease, clock, rng)
        self._tasks: list[asyncio.Task[None]] = []
        self._published: dict[str, dict[bytes, bytes]] = {}
        """The keys and values in etcd that this registry published, by service; those of other services are unknown."""
        self._external: dict[bytes, tuple[str, Instance]] = {}
        """The service and instance of each key that another program set."""
        self._logged_keys: set[bytes] = set()
        """Keys for which the log says why they are not listed."""
        self._full_services: set[str] = set()
        """Services for whose external instances the catalog has no room."""
        self._is_full_logged = False
        self._is_loaded = False
        """True once all external keys were read."""
        self._dirty: set[str] = set()
        """Services to publish and list again."""
        self._kept_shards: Set[int] = frozenset()
        self._seen = ("", -1)
        """The epoch and revision up to which changes of the catalog are in `_dirty`."""

    def start(self) -> None:
        self._session.start()
        self._tasks = [
            asyncio.create_task(self._sync(), name="adsum-etcd-naming"),
            asyncio.create_task(self._follow_etcd(), name="adsum-etcd-naming-watch"),
        ]

    async def close(self) -> None:
        """Stops; idempotent. Published keys stay for `LEASE_TTL` seconds, for another node or the next start."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close(revoke=False)
        await self._etcd.close()

    async def _on_lease(self, _: int) -> None:
        """Publishes everything under a new lease, since the keys of the lease before are gone or will be."""
        self._published.clear()
        self._dirty.update(self._registry.snapshot.services)

    async def _sync(self) -> None:
        backoff = Backoff(MIN_BACKOFF, MAX_BACKOFF)
        while True:
            epoch, watches = self._registry.snapshot.epoch, self._registry.watches
            self._follow_rights()
            visible = self._principal.scopes.visible
            consumer = Consumer(secrets.token_hex(16), "etcd naming", visible=visible)
            with watches.open(None, consumer=consumer) as watch:
                # Acknowledgements are valid in one epoch, and for the services that may be published.
                while epoch == self._registry.snapshot.epoch and self._access.principal is self._principal:
                    await self._sync_once(watch, backoff)
            watches.consumers.say_goodbye(consumer.id, None)

    def _follow_rights(self) -> None:
        """Marks all services if the rights have changed."""
        principal = self._access.principal
        if principal is not self._principal:
            self._principal = principal
            self._mark_all(self._registry.snapshot)

    def _mark_all(self, snapshot: Snapshot) -> None:
        self._dirty.update(snapshot.services, (service for service, _ in self._external.values()))

    async def _sync_once(self, watch: Watch, backoff: Backoff) -> None:
        try:
            snapshot = self._registry.snapshot
            self._find_dirty(snapshot)
            if self._is_loaded:  # Until then, listed instances would seem to have lost their keys.
                await self._settle()
                asyncio.get_running_loop().call_later(PROPAGATION_DELAY, watch.acknowledge, snapshot.revision)
            backoff.reset()
            await watch.changed(timeout=SYNC_INTERVAL)
        except (EtcdError, AdsumError) as error:
            _log.warning("not all services are published and listed yet; they are tried again: %s", error)
            await self._clock.sleep(backoff.next(self._rng))
        except Exception:
            _log.exception("etcd naming failed; it is tried again")
            await self._clock.sleep(backoff.next(self._rng))

    def _find_dirty(self, snapshot: Snapshot) -> None:
        """Marks the services that have changed, or all services if this node keeps others than before."""
        kept_shards = self._sharding.kept_shards
        epoch, revision = self._seen
        self._dirty |= self._full_services
        self._is_full_logged &= bool(self._full_services)
        if kept_shards is not self._kept_shards or epoch != snapshot.epoch:
            self._mark_all(snapshot)
            for name in [name for name in self._published if shard_of(name) not in kept_shards]:
                del self._published[name]  # The node that keeps it now reads what is in etcd.
        else:
            self._dirty.update(service.name for service in snapshot.changed_since(revision))
        self._kept_shards, self._seen = kept_shards, (snapshot.epoch, snapshot.revision)

    async def _settle(self) -> None:
        """Publishes and lists the dirty services that this node keeps. Raises `EtcdError` and `AdsumError`."""
        for name in sorted(self._dirty):
            self._dirty.discard(name)  # First, so that a change from now on marks it again.
            if shard_of(name) in self._kept_shards:
                service = self._registry.snapshot.service(name)
                try:
                    await self._publish(service)
                    await self._list(service)
                except BaseException:
                    self._dirty.add(name)
                    raise

    async def _publish(self, service: ServiceSnapshot) -> None:
        """Sets and deletes keys in etcd, so that a service has one for each usable instance."""
        if not self._session.is_held:
            raise EtcdUnreachable("there is no session with etcd")
        published = self._published.get(service.name)
        if published is None:
            published = self._published[service.name] = await self._read_published(service.name)
        wanted = dict(self._wanted(service))
        # Deletions come first, so that an address that moves to another instance never has two keys.
        deletions = [Delete(key) for key in published if key not in wanted]
        puts = [Put(key, value, self._session.lease) for key, value in wanted.items() if published.get(key) != value]
        operations: list[Put | Delete] = [*deletions, *puts]
        for start in range(0, len(operations), MAX_TRANSACTION_KEYS):
            await self._etcd.commit((), operations[start : start + MAX_TRANSACTION_KEYS])
        if self._published.get(service.name) is published:
            self._published[service.name] = wanted
        else:  # Meanwhile etcd lost keys, and perhaps those that were just written.
            self._dirty.add(service.name)

    async def _read_published(self, service: str) -> dict[bytes, bytes]:
        """Returns the keys that a registry published for the service, with "" as values so that all are rewritten."""
        found = await self._etcd.read_all(naming.directory(self._prefix, service))
        return {entry.key: b"" for entry in found.key_values if naming.is_published(entry.value)}

    def _wanted(self, service: ServiceSnapshot) -> Iterable[tuple[bytes, bytes]]:
        """Returns the keys and values that the service should have in etcd; none if it may not be published."""
        if not may_publish(self._principal, service.name):
            return
        for listing in service.listings.values():
            key = naming.key(self._prefix, listing.instance)
            if listing.status in PUBLISHED_STATUSES and not _is_external(listing) and key not in self._external:
                process = holder_digest(listing.registration.holder)
                yield key, naming.encode(listing.instance, published=True, process=process)

    async def _list(self, service: ServiceSnapshot) -> None:
        """Lists the external instances of a service, and deregisters those whose keys are gone or may not list it.

        An instance that is also registered with the registry is not listed twice.
        """
        registered = {listing.instance.authority for listing in service.listings.values() if not _is_external(listing)}
        external = {key: instance for key, (name, instance) in self._external.items() if name == service.name}
        refusal = listing_refusal(self._principal, service.name)
        if refusal is not None:
            for key in external:
                self._log_unlisted(key, refusal)
            external = {}
        wanted = {instance.id: instance for instance in external.values() if instance.authority not in registered}
        caller = Caller(HOLDER, self._clock.wall(), principal=self._principal)
        writes = []
        for id, instance in wanted.items():
            listing = service.listings.get(id)
            registration = Registration(instance, None, holder=HOLDER)
            if listing is None or (
                _is_external(listing) and (listing.registration != registration or not listing.owner)
            ):
                writes.append(decisions.register(registration, caller, Takeover.NEVER))
        for id, listing in service.listings.items():
            if _is_external(listing) and id not in wanted:
                has_key = any(instance.id == id for instance in external.values())
                reason = "registered with the registry as well" if has_key else "its key in etcd is gone"
                reason = reason if refusal is None else str(refusal)
                # Without the right to write it, etcd naming still removes what it has listed: as the registry.
                writes.append(decisions.deregister(Key(service.name, id), HOLDER, reason, Caller(HOLDER, caller.at)))
        self._full_services.discard(service.name)
        await asyncio.gather(*(self._write(service.name, write) for write in writes))

    async def _write(self, service: str, write: Decision) -> None:
        """Writes a decision.

        An instance that a process has registered meanwhile stays, and its key is left out at the next sync. So does one
        of another owner, unless etcd naming may operate the service. If the catalog is full, the decision is tried
        again at the next sync, and delays no other service.
        """
        try:
            with suppress(RegistrationConflict, NotOwner):
                await self._registry.write(write)
        except CatalogFull as full:
            self._full_services.add(service)
            if not self._is_full_logged:
                _log.warning("not all instances that are registered in etcd are listed: %s", full)
            self._is_full_logged = True

    async def _follow_etcd(self) -> None:
        backoff = Backoff(MIN_BACKOFF, MAX_BACKOFF)
        while True:
            try:
                await self._follow_once(backoff)
            except EtcdError as error:
                _log.warning("keys in etcd can't be watched; it is tried again: %s", error)
            except Exception:
                _log.exception("keys in etcd can't be watched; it is tried again")
            await self._clock.sleep(backoff.next(self._rng))

    async def _follow_once(self, backoff: Backoff) -> None:
        """Reads all keys, then watches them until the watch breaks. Raises `EtcdError`."""
        prefix = self._prefix.encode()
        found = await self._etcd.read_all(prefix)
        before, self._external = self._external, {}
        self._logged_keys &= {entry.key for entry in found.key_values}
        for entry in found.key_values:
            self._update(entry.key, entry)
        self._republish_lost(found.key_values)
        self._session.verify()
        self._dirty.update(service for service, _ in [*before.values(), *self._external.values()])
        if not self._is_loaded:
            # Keys of instances that were listed before a restart may have gone meanwhile.
            self._is_loaded = True
            self._dirty.update(self._registry.snapshot.services)
        messages = watch(self._etcd, prefix, found.header.revision + 1, self._clock, self._rng)
        async with aclosing(messages):
            async for message in messages:
                if isinstance(message, WatchInterrupted | ResyncRequired):
                    raise EtcdUnreachable(message.reason)
                backoff.reset()
                if not isinstance(message, WatchProgress):
                    for event in message.events:
                        self._update(event.key, event.key_value)

    def _republish_lost(self, found: Sequence[KeyValue]) -> None:
        """Publishes services again whose keys are not those published: etcd was wiped, or restored from a backup."""
        values = {entry.key: entry.value for entry in found}
        for service, published in list(self._published.items()):
            if any(values.get(key) != value for key, value in published.items()):
                del self._published[service]
                self._dirty.add(service)

    def _update(self, key: bytes, entry: KeyValue | None) -> None:
        """Records the new value of a key; None: it was deleted."""
        if not self._prefix and key.startswith(b"/"):
            return  # A key of a store, or of another program's folder: no service has such a name.
        before = self._external.pop(key, None)
        try:
            if entry is not None and not naming.is_published(entry.value):
                self._external[key] = self._decode(key, entry.value)
            self._logged_keys.discard(key)
        except Invalid as error:
            self._log_unlisted(key, error)
        self._dirty.update(service for service, _ in filter(None, (before, self._external.get(key))))

    def _decode(self, key: bytes, value: bytes) -> tuple[str, Instance]:
        """Returns the service and the instance of an external key. Raises `Invalid` for one that can't be listed."""
        service = naming.service(self._prefix, key)
        instance = naming.decode(service, value)
        if instance is None:
            raise Invalid("value", 'must be {"Addr":"HOST:PORT"}')
        self._check_address(instance.address)
        return service, _with_origin(instance)

    def _log_unlisted(self, key: bytes, error: AdsumError) -> None:
        if key not in self._logged_keys and len(self._logged_keys) < MAX_LOGGED_KEYS:
            self._logged_keys.add(key)
            text = ascii(key.decode(errors="replace")[:MAX_LOGGED_KEY_LENGTH])
            _log.warning("the key %s in etcd is not listed: %s", text, error)
            self._access.record_refusal(error)


def _is_external(listing: Listing) -> bool:
    return listing.registration.holder == HOLDER


def _with_origin(instance: Instance) -> Instance:
    """Returns the instance with its origin as metadata. Raises `Invalid` if it has the maximum of metadata already."""
    return replace(instance, metadata=freeze({**instance.metadata, ORIGIN_KEY: HOLDER}))
