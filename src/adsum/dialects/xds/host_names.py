"""Resolves the host names of instances, since gateways need IP addresses.

A name is looked up when it first appears and again every `REFRESH_INTERVAL` seconds. If a look-up fails, the last
address stays. An address also stays while it is among the answers, so that nothing changes without a reason.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from adsum.core.addresses import is_ip_address
from adsum.core.backoff import jittered
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.ports import Clock

REFRESH_INTERVAL: Final = 30.0
"""Seconds between two look-ups of one name, with a jitter of a fifth."""
RETRY_INTERVAL: Final = 5.0
"""Seconds after which a failed look-up is repeated while the name has no address."""
MAX_HOST_NAMES: Final = 10_000
"""Names that are resolved; further ones stay unresolved, and gateways do not get their instances."""
MAX_CONCURRENT_LOOKUPS: Final = 16
"""Look-ups at a time; others wait."""
LOOKUP_TIMEOUT: Final = 10.0
"""Seconds after which a look-up counts as failed."""

AddressRefusal = Callable[[str], "str | None"]
"""Returns why an IP address may not be used; None if it may."""

_NO_NAMES: Final = frozenset[str]()


class HostNameResolver:
    """Resolves the host names in the latest snapshot. `on_change` is called when an address has changed."""

    def __init__(self, clock: Clock, rng: Random, refusal: AddressRefusal, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._rng = rng
        self._refusal = refusal
        self._on_change = on_change
        self._names: dict[str, frozenset[str]] = {}
        """The host names of each service that has some."""
        self._look_ups: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)
        self._revision = -1
        self._epoch = ""
        self.addresses: Mapping[str, str] = MappingProxyType({})
        """Name → IP address. Another object whenever something has changed."""

    def follow(self, snapshot: Snapshot) -> None:
        """Resolves the names in this snapshot, and no others."""
        has_changed = snapshot.epoch != self._epoch
        if has_changed:
            self._names, self._revision = {}, -1
        for service in snapshot.changed_since(self._revision):
            if self._has_no_names(service):
                continue
            names = frozenset(
                listing.instance.address
                for listing in service.listings.values()
                if not is_ip_address(listing.instance.address)
            )
            if names != self._names.get(service.name, _NO_NAMES):
                has_changed = True
                self._names[service.name] = names
                if not names:
                    del self._names[service.name]
        self._epoch, self._revision = snapshot.epoch, snapshot.revision
        if has_changed:
            self._resolve_all(_NO_NAMES.union(*self._names.values()))

    async def close(self) -> None:
        """Stops all look-ups; idempotent."""
        tasks = list(self._look_ups.values())
        self._look_ups = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _has_no_names(self, service: ServiceSnapshot) -> bool:
        """Returns whether the service still has no host name, if its recent changes show that without a full scan."""
        if service.name in self._names or self._revision < service.compact_revision:
            return False
        for change in reversed(service.recent_changes):
            if change.revision <= self._revision:
                break
            listing = service.listings.get(change.key.id)
            if listing is not None and not is_ip_address(listing.instance.address):
                return False
        return True

    def _resolve_all(self, names: frozenset[str]) -> None:
        for name in [name for name in self._look_ups if name not in names]:
            self._look_ups.pop(name).cancel()
        if any(name not in names for name in self.addresses):
            self.addresses = MappingProxyType({name: ip for name, ip in self.addresses.items() if name in names})
        for name in sorted(names - self._look_ups.keys())[: MAX_HOST_NAMES - len(self._look_ups)]:
            self._look_ups[name] = asyncio.create_task(self._keep_resolved(name), name=f"adsum-resolve-{name}")

    async def _keep_resolved(self, name: str) -> None:
        while True:
            async with self._slots:
                found = await self._usable_addresses(name)
            if found and self.addresses.get(name) not in found:
                self.addresses = MappingProxyType({**self.addresses, name: found[0]})
                self._on_change()
            await self._clock.sleep(jittered(REFRESH_INTERVAL if name in self.addresses else RETRY_INTERVAL, self._rng))

    async def _usable_addresses(self, name: str) -> list[str]:
        """Returns the IP addresses that may be used, in order of preference; none if the look-up fails."""
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                found = await look_up(name)
        except (OSError, UnicodeError):  # `TimeoutError` is an `OSError`.
            return []
        return [ip for ip in found if "%" not in ip and self._refusal(ip) is None]


async def look_up(name: str) -> list[str]:
    """Returns the IP addresses of a name, in the system's order of preference. Raises `OSError` and `UnicodeError`."""
    answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in answers))
