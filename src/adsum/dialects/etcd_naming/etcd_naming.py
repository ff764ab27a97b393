"""etcd's gRPC naming, both ways: usable instances of the catalog are keys that Go programs resolve as
`etcd:///my-service`, and instances that others register by such keys are listed in the catalog.

Each service is spoken for by the node that keeps it. What a registry published says so, and is never listed; what was
listed from a key is held by `HOLDER`, and is never published: so nothing goes round in circles.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import aclosing, suppress
from dataclasses import replace
from random import Random
from typing import Final

from adsum.consumers import Consumer
from adsum.core.backoff import Backoff
from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import AdsumError, CatalogFull, Invalid, RegistrationConflict
from adsum.core.identity import holder_digest
from adsum.core.model import Instance, Key, Listing, Registration, Status, freeze
from adsum.core.nodes.sharding import shard_of
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
"""Who holds what is listed from a key, and is recorded as the author of it."""
ORIGIN_KEY: Final = "origin"
"""The metadata that tells where such an instance comes from."""
LEASE_TTL: Final = 60
"""Seconds for which published keys outlive the node that published them: those who resolve them must not find nobody
while a registry is started again, nor for ever find those who died with it."""
SYNC_INTERVAL: Final = 1.0
"""Seconds between two looks at what this node keeps."""
PROPAGATION_DELAY: Final = 0.1
"""Seconds from a change of keys until those who resolve them count as going by it: they hear within milliseconds, and
none says when it has."""
MAX_TRANSACTION_KEYS: Final = 100
"""Keys that one transaction sets and deletes."""
MAX_LOGGED_KEYS: Final = 1_000
"""Keys of which the log says why they are not listed, each once; of more, it does not."""
MAX_LOGGED_KEY_LENGTH: Final = 200
"""Characters of a key that the log shows."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Bounds of the pause after etcd or the store failed, in seconds."""
PUBLISHED_STATUSES: Final = frozenset({Status.PASSING, Status.WARNING})

_log = logging.getLogger("adsum.etcd-naming")


class EtcdNaming:
    """Speaks etcd naming below one prefix; `start` it when the catalog is loaded, and `close` it."""

    def __init__(
        self,
        etcd: EtcdClient,
        prefix: str,
        registry: Registry,
        shares: Sharding,
        admit: Callable[[str], None],
        clock: Clock,
        rng: Random,
    ) -> None:
        """`admit` raises `Invalid` for an address at which no instance may be."""
        self._admit = admit
        self._etcd = etcd
        self._prefix = prefix
        self._registry = registry
        self._shares = shares
        self._clock = clock
        self._rng = rng
        self._session = EtcdSession(etcd, LEASE_TTL, self._granted, clock, rng)
        self._tasks: list[asyncio.Task[None]] = []
        self._published: dict[str, dict[bytes, bytes]] = {}
        """What etcd holds of ours, by service; one that is missing has to be looked at."""
        self._foreign: dict[bytes, tuple[str, Instance]] = {}
        self._complaints: set[bytes] = set()
        """Keys of which the log says why they are not listed."""
        self._full: set[str] = set()
        """Services of which the catalog has no room for all that others registered."""
        self._told_full = False
        """Whether the log says so."""
        self._known = False
        """Whether what others registered is known whole."""
        self._dirty: set[str] = set()
        self._kept: Set[int] = frozenset()
        self._seen = ("", -1)

    def start(self) -> None:
        self._session.start()
        self._tasks = [
            asyncio.create_task(self._speak(), name="adsum-etcd-naming"),
            asyncio.create_task(self._listen(), name="adsum-etcd-naming-listen"),
        ]

    async def close(self) -> None:
        """What was published stays for `LEASE_TTL` seconds, for another node or the next start to take over; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close(revoke=False)
        await self._etcd.close()

    async def _granted(self, _: int) -> None:
        """Keys of the lease before are gone, or will be."""
        self._published.clear()
        self._dirty.update(self._registry.snapshot.services)

    async def _speak(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            epoch, watches = self._registry.snapshot.epoch, self._registry.watches
            consumer = Consumer(secrets.token_hex(16), "etcd naming")
            with watches.open(None, consumer=consumer) as watching:
                while epoch == self._registry.snapshot.epoch:  # What it acknowledged of one says nothing of another.
                    await self._speak_once(watching, backoff)
            watches.consumers.say_goodbye(consumer.id, None)

    async def _speak_once(self, watching: Watch, backoff: Backoff) -> None:
        try:
            snapshot = self._registry.snapshot
            self._look(snapshot)
            if self._known:  # Else what others put there would be taken for nobody's.
                await self._settle()
                asyncio.get_running_loop().call_later(PROPAGATION_DELAY, watching.acknowledge, snapshot.revision)
            backoff.reset()
            await watching.changed(timeout=SYNC_INTERVAL)
        except (EtcdError, AdsumError) as error:
            _log.warning("not all is said and listed yet: %s", error)
            await self._clock.sleep(backoff.next(self._rng))
        except Exception:
            _log.exception("etcd naming failed")
            await self._clock.sleep(backoff.next(self._rng))

    def _look(self, snapshot: Snapshot) -> None:
        """Which services have to be looked at: what changed, and everything when we keep others than before."""
        kept = self._shares.kept_shards
        epoch, revision = self._seen
        self._dirty |= self._full
        self._told_full &= bool(self._full)
        if kept is not self._kept or epoch != snapshot.epoch:
            self._dirty.update(snapshot.services, (service for service, _ in self._foreign.values()))
            for name in [name for name in self._published if shard_of(name) not in kept]:
                del self._published[name]  # Whoever keeps it now looks at what is there.
        else:
            self._dirty.update(service.name for service in snapshot.changed_since(revision))
        self._kept, self._seen = kept, (snapshot.epoch, snapshot.revision)

    async def _settle(self) -> None:
        """Raises `EtcdError`, and what the registry raises."""
        for name in sorted(self._dirty):
            self._dirty.discard(name)  # First: what changes from now on has to be looked at again.
            if shard_of(name) in self._kept:
                service = self._registry.snapshot.service(name)
                try:
                    await self._publish(service)
                    await self._list(service)
                except BaseException:
                    self._dirty.add(name)
                    raise

    async def _publish(self, service: ServiceSnapshot) -> None:
        if not self._session.is_held:
            raise EtcdUnreachable("there is no session with etcd")
        there = self._published.get(service.name)
        if there is None:
            there = self._published[service.name] = await self._ours(service.name)
        wanted = dict(self._wanted(service))
        # First what goes: an address that moves to another instance is never there twice.
        gone = [Delete(key) for key in there if key not in wanted]
        new = [Put(key, value, self._session.lease) for key, value in wanted.items() if there.get(key) != value]
        operations: list[Put | Delete] = [*gone, *new]
        for start in range(0, len(operations), MAX_TRANSACTION_KEYS):
            await self._etcd.commit((), operations[start : start + MAX_TRANSACTION_KEYS])
        if self._published.get(service.name) is there:
            self._published[service.name] = wanted
        else:  # Meanwhile etcd lost what was there, and maybe what we wrote.
            self._dirty.add(service.name)

    async def _ours(self, service: str) -> dict[bytes, bytes]:
        """What a registry published of the service, to be told from what it should be: values count as unknown."""
        found = await self._etcd.read_all(naming.directory(self._prefix, service))
        return {each.key: b"" for each in found.key_values if naming.is_published(each.value)}

    def _wanted(self, service: ServiceSnapshot) -> Iterable[tuple[bytes, bytes]]:
        for listing in service.listings.values():
            key = naming.key(self._prefix, listing.instance)
            if listing.status in PUBLISHED_STATUSES and not _is_foreign(listing) and key not in self._foreign:
                process = holder_digest(listing.registration.holder)
                yield key, naming.encode(listing.instance, published=True, process=process)

    async def _list(self, service: ServiceSnapshot) -> None:
        """List what others registered of the service, and take out what they deregistered.

        Who is registered with us as well is not listed twice.
        """
        ours = {each.instance.authority for each in service.listings.values() if not _is_foreign(each)}
        found = [found for name, found in self._foreign.values() if name == service.name]
        wanted = {each.id: each for each in found if each.authority not in ours}
        caller = Caller(HOLDER, self._clock.wall())
        writes = []
        for id, instance in wanted.items():
            listing = service.listings.get(id)
            registration = Registration(instance, None, holder=HOLDER)
            if listing is None or (_is_foreign(listing) and listing.registration != registration):
                writes.append(decisions.register(registration, caller, Takeover.NEVER))
        for id, listing in service.listings.items():
            if _is_foreign(listing) and id not in wanted:
                here = any(each.id == id for each in found)
                reason = "it registered here as well" if here else "no key in etcd names it any more"
                writes.append(decisions.deregister(Key(service.name, id), HOLDER, reason, caller))
        self._full.discard(service.name)
        await asyncio.gather(*(self._write(service.name, each) for each in writes))

    async def _write(self, service: str, write: Decision) -> None:
        """What a process has registered with us meanwhile stays: the next look leaves its key out.

        What a full catalog has no room for is tried again at the next look, and holds up nothing else.
        """
        try:
            with suppress(RegistrationConflict):
                await self._registry.write(write)
        except CatalogFull as full:
            self._full.add(service)
            if not self._told_full:
                _log.warning("not all that others registered in etcd is listed: %s", full)
            self._told_full = True

    async def _listen(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await self._follow(backoff)
            except EtcdError as error:
                _log.warning("etcd can't be followed: %s", error)
            except Exception:
                _log.exception("etcd can't be followed")
            await self._clock.sleep(backoff.next(self._rng))

    async def _follow(self, backoff: Backoff) -> None:
        """Over one connection. Raises `EtcdError`."""
        prefix = self._prefix.encode()
        found = await self._etcd.read_all(prefix)
        before, self._foreign = self._foreign, {}
        self._complaints &= {each.key for each in found.key_values}
        for kept in found.key_values:
            self._take(kept.key, kept)
        self._forget_what_etcd_lost(found.key_values)
        self._session.verify()
        self._dirty.update(name for name, _ in [*before.values(), *self._foreign.values()])
        if not self._known:
            # What was listed before a restart may have gone meanwhile.
            self._known = True
            self._dirty.update(self._registry.snapshot.services)
        async with aclosing(watch(self._etcd, prefix, found.header.revision + 1, self._clock, self._rng)) as told:
            async for each in told:
                if isinstance(each, WatchInterrupted | ResyncRequired):
                    raise EtcdUnreachable(each.reason)
                backoff.reset()
                if not isinstance(each, WatchProgress):
                    for event in each.events:
                        self._take(event.key, event.key_value)

    def _forget_what_etcd_lost(self, found: Sequence[KeyValue]) -> None:
        """Have services published anew whose keys are not in etcd as we left them: it may have been wiped or restored
        from a backup.
        """
        there = {each.key: each.value for each in found}
        for service, published in list(self._published.items()):
            if any(there.get(key) != value for key, value in published.items()):
                del self._published[service]
                self._dirty.add(service)

    def _take(self, key: bytes, now: KeyValue | None) -> None:
        if not self._prefix and key.startswith(b"/"):
            return  # A store's, or of others who keep to a folder: no service is called so.
        before = self._foreign.pop(key, None)
        try:
            if now is not None and not naming.is_published(now.value):
                self._foreign[key] = self._read(key, now.value)
            self._complaints.discard(key)
        except Invalid as error:
            self._complain(key, error)
        self._dirty.update(name for name, _ in filter(None, (before, self._foreign.get(key))))

    def _read(self, key: bytes, value: bytes) -> tuple[str, Instance]:
        """The service that is registered there, and its instance. Raises `Invalid`: neither is listed."""
        service = naming.service(self._prefix, key)
        instance = naming.decode(service, value)
        if instance is None:
            raise Invalid("value", 'must be {"Addr":"HOST:PORT"}')
        self._admit(instance.address)
        return service, _marked(instance)

    def _complain(self, key: bytes, error: Invalid) -> None:
        if key not in self._complaints and len(self._complaints) < MAX_LOGGED_KEYS:
            self._complaints.add(key)
            _log.warning(
                "%s in etcd is not listed: %s", ascii(key.decode(errors="replace")[:MAX_LOGGED_KEY_LENGTH]), error
            )


def _is_foreign(listing: Listing) -> bool:
    return listing.registration.holder == HOLDER


def _marked(instance: Instance) -> Instance:
    """The instance with its origin. Raises `Invalid` if it has as much metadata as it may have already."""
    return replace(instance, metadata=freeze({**instance.metadata, ORIGIN_KEY: HOLDER}))
