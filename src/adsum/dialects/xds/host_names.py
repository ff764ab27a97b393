"""The addresses of host names: gateways want instances' addresses as numbers, and instances may have given names.

A name is asked for when it comes up and again every `REFRESH_INTERVAL` seconds. While the answer is an error the last good one
stays; an address that is still among the answers stays, so that nothing moves without a reason.
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
"""Seconds between two questions for one name, give or take a fifth."""
RETRY_INTERVAL: Final = 5.0
"""Seconds after which one is repeated that failed when nothing was known."""
MAX_HOST_NAMES: Final = 10_000
"""Names that are followed; further ones stay unresolved, and their instances are left out."""
MAX_CONCURRENT_LOOKUPS: Final = 16
"""Questions asked at a time; others wait."""
LOOKUP_TIMEOUT: Final = 10.0
"""Seconds that an answer may take; then it counts as failed."""

AddressRefusal = Callable[[str], "str | None"]

_NO_NAMES: Final = frozenset[str]()


class HostNameResolver:
    """Follows the host names in a catalog; `changed` is called when an answer is another than before."""

    def __init__(self, clock: Clock, rng: Random, refusal: AddressRefusal, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._rng = rng
        self._refusal = refusal
        self._changed = on_change
        self._names: dict[str, frozenset[str]] = {}
        """The names in each service that has some."""
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._seats = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS)
        self._revision = -1
        self._epoch = ""
        self.addresses: Mapping[str, str] = MappingProxyType({})
        """Name → address, as last answered. Another object whenever something changed."""

    def follow(self, snapshot: Snapshot) -> None:
        """Follow the names in this snapshot, and no others."""
        moved = snapshot.epoch != self._epoch
        if moved:
            self._names, self._revision = {}, -1
        for service in snapshot.changed_since(self._revision):
            if self._still_nameless(service):
                continue
            names = frozenset(
                each.instance.address for each in service.listings.values() if not is_ip_address(each.instance.address)
            )
            if names != self._names.get(service.name, _NO_NAMES):
                moved = True
                self._names[service.name] = names
                if not names:
                    del self._names[service.name]
        self._epoch, self._revision = snapshot.epoch, snapshot.revision
        if moved:
            self._attend(_NO_NAMES.union(*self._names.values()))

    async def close(self) -> None:
        """Ask no more; idempotent."""
        tasks = list(self._asking.values())
        self._asking = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _still_nameless(self, service: ServiceSnapshot) -> bool:
        """Whether it had no names, and what changed brought none: told without looking at every instance."""
        if service.name in self._names or self._revision < 0:
            return False
        diff = service.diff_since(self._revision)
        return diff is not None and all(is_ip_address(each.instance.address) for each in diff.changed)

    def _attend(self, names: frozenset[str]) -> None:
        for name in [name for name in self._asking if name not in names]:
            self._asking.pop(name).cancel()
        if any(name not in names for name in self.addresses):
            self.addresses = MappingProxyType({name: ip for name, ip in self.addresses.items() if name in names})
        for name in sorted(names - self._asking.keys())[: MAX_HOST_NAMES - len(self._asking)]:
            self._asking[name] = asyncio.create_task(self._ask_on(name), name=f"adsum-resolve-{name}")

    async def _ask_on(self, name: str) -> None:
        while True:
            async with self._seats:
                found = await self._ask(name)
            if found and self.addresses.get(name) not in found:
                self.addresses = MappingProxyType({**self.addresses, name: found[0]})
                self._changed()
            await self._clock.sleep(jittered(REFRESH_INTERVAL if name in self.addresses else RETRY_INTERVAL, self._rng))

    async def _ask(self, name: str) -> list[str]:
        """The addresses that may be used, best first; none if there is no answer."""
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                found = await look_up(name)
        except (OSError, UnicodeError):  # `TimeoutError` is one, too.
            return []
        return [ip for ip in found if "%" not in ip and self._refusal(ip) is None]


async def look_up(name: str) -> list[str]:
    """The addresses of a name, in the order that the system prefers. Raises `OSError` and `UnicodeError`."""
    answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in answers))
