"""Straight on etcd, without a registry: instances are keys under leases, in the format of etcd's gRPC naming packages.

Go programs that dial `etcd:///my-service` find what is registered here, and what they register is found. Nobody checks
health but the lease, and nobody says that he has heard of a drain: who needs that runs a registry.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum import wire
from adsum.client.address import facing
from adsum.client.errors import RegistryRefused, RegistryUnavailable, Unacknowledged
from adsum.client.ports import Group, Lost, Position
from adsum.core.backoff import Backoff
from adsum.core.errors import AdsumError, Invalid, UnknownInstance
from adsum.core.model import Endpoint, Instance, Key
from adsum.etcd import naming
from adsum.etcd.connection import Etcd
from adsum.etcd.errors import EtcdError, LeaseGone, Unreachable
from adsum.etcd.place import Place
from adsum.etcd.values import Delete, Header, KeyValue, Put
from adsum.etcd.watch import Broken, Fresh, Gone, watch
from adsum.ports import Clock

SHORTEST_TTL: Final = 2.0
"""Seconds; etcd grants no shorter lease."""
SETTLE: Final = 1.0
"""Seconds that a drain waits after the key is gone: watchers hear of it within milliseconds, but don't say so."""
FRESH_EVERY: Final = 3.0
"""Seconds between two words that a quiet service is as it was."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Bounds of the pause before everything is read anew, in seconds."""


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

    def __init__(self, urls: Sequence[str], *, actor: str, clock: Clock, rng: Random) -> None:  # noqa: ARG002
        """Nobody is recorded as the author of a key."""
        if len(urls) != 1:
            raise Invalid("url", "must be one address that names every member: etcd://h1:2379,h2:2379")
        self._place = Place.parse(urls[0])
        self._etcd = Etcd(self._place, rng)
        self._clock = clock
        self._rng = rng
        self._listed: dict[Key, _Listed] = {}
        self._cluster = 0
        self._newest = 0
        self._histories = 0

    async def watch(self, service: str, position: Callable[[], Position | None]) -> AsyncGenerator[Group | Lost, None]:
        """Follow a service for ever: read it whole, then every change; and whole again after each lost connection."""
        del position  # Reading a service whole costs little, and heals whatever happened meanwhile.
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                async with aclosing(self._connection(service)) as groups:
                    async for group in groups:
                        backoff.reset()
                        yield group
                why = "etcd ended the watch"
            except EtcdError as error:
                why = str(error)
            yield Lost(f"{self._place}: {why}")
            await self._clock.sleep(self._rng.uniform(0.0, backoff.next(self._rng)))

    async def _connection(self, service: str) -> AsyncGenerator[Group, None]:
        """The groups of one connection. Raises `EtcdError`."""
        directory = naming.directory(self._place.prefix, service)
        found = await self._etcd.everything(directory)
        epoch, at = self._note(found.header), found.header.revision
        keys = {each.key: self._endpoint(service, each) for each in found.found}
        shown = _shown(keys)
        yield Group(Position(epoch, at), whole=True, changed=shown)
        told_at = self._clock.now()
        async with aclosing(watch(self._etcd, directory, at + 1, self._clock, self._rng)) as told:
            async for each in told:
                if isinstance(each, Broken | Gone):
                    raise Unreachable(each.why)
                if isinstance(each, Fresh):
                    if self._clock.now() - told_at < FRESH_EVERY:
                        continue
                    since, at = at, max(at, each.header.revision)
                else:
                    for event in each.events:
                        keys.pop(event.key, None)
                        if event.now is not None:
                            keys[event.key] = self._endpoint(service, event.now)
                    since, at = at, each.revision
                told_at = self._clock.now()
                before, shown = shown, _shown(keys)
                changed = {id: endpoint for id, endpoint in shown.items() if before.get(id) != endpoint}
                gone = frozenset(before.keys() - shown.keys())
                yield Group(Position(epoch, at), whole=False, changed=changed, gone=gone, since=since)

    def _endpoint(self, service: str, found: KeyValue) -> Endpoint | None:
        instance = naming.read(service, found.value)
        return None if instance is None else Endpoint(instance)

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.Written:
        """Raises `Invalid` for checks: there is nobody to run them."""
        if body.checks:
            raise Invalid("checks", "can't be run without a registry; leave them out, or register with one")
        registration = body.to_registration(service, id, "")
        instance, key = registration.instance, Key(service, id)
        ttl = None if registration.ttl is None else max(SHORTEST_TTL, registration.ttl)
        try:
            lease = 0 if ttl is None else await self._etcd.grant(math.ceil(ttl))
            before = self._listed.get(key)
            moved = before is not None and before.instance.authority != instance.authority
            gone = [Delete(self._key(before.instance))] if before is not None and moved else []
            put = Put(self._key(instance), naming.write(instance), lease)
            settled = await self._etcd.commit((), [*gone, put])
            if before is not None and before.lease:
                await self._etcd.revoke(before.lease)
        except EtcdError as error:
            raise _translated(error) from None
        self._listed[key] = _Listed(instance, registration.holder, lease)
        return wire.Written(self._note(settled.header), settled.header.revision, ttl)

    async def renew(self, leases: Sequence[wire.LeaseBody], patience: float) -> wire.Renewed:
        lost = []
        header: Header | None = None
        try:
            async with asyncio.timeout(max(1.0, 2 * patience)):
                for lease in leases:
                    listed = self._listed.get(Key(lease.service, lease.id))
                    if listed is not None and listed.drained:
                        continue
                    found = None if listed is None else await self._renewed(listed)
                    header = found or header
                    if found is None:
                        lost.append(wire.Lost(lease.service, lease.id, "unknown"))
        except EtcdError as error:
            raise _translated(error) from None
        except TimeoutError:
            raise RegistryUnavailable(f"{self._place} does not answer in time") from None
        epoch = self._epoch if header is None else self._note(header)
        return wire.Renewed(epoch, self._newest, len(leases) - len(lost), lost)

    async def _renewed(self, listed: _Listed) -> Header | None:
        """What etcd said; None: the lease or its key is gone. Raises `EtcdError`."""
        try:
            if listed.lease:
                await self._etcd.keep_alive(listed.lease)
        except LeaseGone:
            return None
        found = await self._etcd.range(self._key(listed.instance))
        return found.header if found.found else None

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.Written:
        """A drain takes the key away. Raises `Unacknowledged` after a drain that was to be waited for."""
        if body.status != "draining":
            raise Invalid("status", f"{body.status} needs a registry; straight on etcd an instance can only be drained")
        listed = self._listed.get(Key(service, id))
        if listed is None:
            raise UnknownInstance(service, id)
        written = await self._taken_out(listed)
        listed.drained = True
        if body.wait:
            settle = min(SETTLE, body.wait)
            await self._clock.sleep(settle)
            raise Unacknowledged(f"etcd tells consumers, and none says when it has heard; {settle:g} s were waited for")
        return written

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.Written:  # noqa: ARG002
        listed = self._listed.pop(Key(service, id), None)
        if listed is None or listed.drained:
            return wire.Written(self._epoch, self._newest)
        return await self._taken_out(listed)

    async def _taken_out(self, listed: _Listed) -> wire.Written:
        try:
            settled = await self._etcd.commit((), [Delete(self._key(listed.instance))])
            if listed.lease:
                await self._etcd.revoke(listed.lease)
        except EtcdError as error:
            raise _translated(error) from None
        return wire.Written(self._note(settled.header), settled.header.revision)

    async def local_address(self) -> str:
        """The address of this host on the way to etcd; 127.0.0.1 if that is on this host."""
        host, _, port = self._etcd.host.rpartition(":")
        try:
            async with asyncio.timeout(5.0):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host.strip("[]"), int(port), type=socket.SOCK_DGRAM
                )
            return facing(found[0][4])
        except (OSError, TimeoutError) as error:
            raise RegistryUnavailable(f"there is no way to {host}: {error}") from None

    async def close(self) -> None:
        await self._etcd.close()

    def _key(self, instance: Instance) -> bytes:
        return naming.key(self._place.prefix, instance)

    @property
    def _epoch(self) -> str:
        return f"{self._cluster:x}-{self._histories}"

    def _note(self, header: Header) -> str:
        """The epoch: another one when etcd's revisions went back, for then it was wiped or restored from a backup."""
        if self._cluster and (header.cluster != self._cluster or header.revision < self._newest):
            self._histories += 1
            self._newest = 0
        self._cluster = header.cluster
        self._newest = max(self._newest, header.revision)
        return self._epoch


def _shown(keys: dict[bytes, Endpoint | None]) -> dict[str, Endpoint]:
    """What is shown, by id; of two keys with one id the later."""
    return {endpoint.id: endpoint for _, endpoint in sorted(keys.items()) if endpoint is not None}


def _translated(error: EtcdError) -> AdsumError:
    if isinstance(error, Unreachable):
        return RegistryUnavailable(str(error))
    return RegistryRefused(403, str(error))
