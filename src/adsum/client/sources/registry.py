"""The native registry: a watch over Server-Sent Events for each service followed, requests for everything else.

One watch a service, not one for all: a watch resumes from one revision, so a joint one would have to be told anew, for
every service, whenever a program begins to follow another. A quiet watch costs the registry one heartbeat in 15 s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from random import Random
from typing import Final
from urllib.parse import urlsplit

from adsum import wire
from adsum.client.acknowledging import Acknowledging
from adsum.client.address import facing
from adsum.client.api import BASE, TIMEOUT, Api
from adsum.client.errors import Garbled, RegistryUnavailable, Unreachable
from adsum.client.grouping import Grouping
from adsum.client.ports import Group, Lost, Position
from adsum.client.sse import Parser
from adsum.core.backoff import Backoff
from adsum.ports import Clock

STALE_AFTER: Final = 2.5 * 15.0
"""Seconds without a word (heartbeats come every 15) after which a connection counts as dead and another is made."""
TOO_OLD: Final = 10.0
"""Seconds since a node reached its store after which another node is tried."""
STAY: Final = 60.0
"""Seconds between two such tries: if no node reaches the store, one is as good as another."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Bounds of the pause before connecting again. The pause itself is any part of it: all clients of a node that dies
notice at once, and must not arrive at the next one together."""


class RegistrySource:
    """Implements `ports.Source`."""

    def __init__(
        self, urls: Sequence[str], *, actor: str, clock: Clock, rng: Random, stale_after: float = STALE_AFTER
    ) -> None:
        self.api = Api(urls, actor=actor, rng=rng)
        self._clock = clock
        self._rng = rng
        self._stale_after = stale_after
        self._stays_until = clock.now()

    async def watch(self, service: str, position: Callable[[], Position | None]) -> AsyncGenerator[Group | Lost, None]:
        """Follow a service over connections that break, failing over between nodes."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            node = self.api.nodes.current
            try:
                async with aclosing(self._connection(node, service, position())) as groups:
                    async for group in groups:
                        backoff.reset()
                        yield group
                why = "the registry ended the watch"
            except (Unreachable, Garbled) as error:
                why = str(error)
            self.api.nodes.failed(node)
            yield Lost(f"{node}: {why}")
            await self._clock.sleep(self._rng.uniform(0.0, backoff.next(self._rng)))

    async def _connection(self, node: str, service: str, since: Position | None) -> AsyncGenerator[Group, None]:
        """The groups of one connection."""
        headers = {**self.api.headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        if since is not None:
            headers["Last-Event-ID"] = f"{since.epoch}:{since.revision}"
        params = [("service", service), ("acks", "true")]
        grouping, parser = Grouping(service, since), Parser()
        async with (
            Acknowledging(self.api, node) as acknowledging,
            self.api.transport.stream(
                f"{node}{BASE}/watch", idle=self._stale_after, params=params, headers=headers
            ) as (reply, chunks),
        ):
            if reply.status != 200:
                raise Unreachable(f"it answered the watch with status {reply.status}")
            async for chunk in chunks:
                for event in parser.feed(chunk):
                    group = grouping.take(event)
                    if group is not None and grouping.opened is not None:
                        yield group
                        self._mind_the_age(group)
                        # We were asked for more, so our consumer routes by this group now.
                        acknowledging.routed_by(group, grouping.opened.watch)

    def _mind_the_age(self, group: Group) -> None:
        """A node that lost its store tells what it knew: another one may know more. Raises `Unreachable`."""
        now = self._clock.now()
        if group.age < TOO_OLD or len(self.api.nodes) < 2 or now < self._stays_until:
            return
        self._stays_until = now + STAY
        raise Unreachable(f"it reached its store {group.age:.0f} s ago")

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.Written:
        return await self.api.register(service, id, body)

    async def renew(self, leases: Sequence[wire.LeaseBody], patience: float) -> wire.Renewed:
        return await self.api.renew(leases, timeout=patience)

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.Written:
        return await self.api.override(service, id, body)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.Written:
        return await self.api.deregister(service, id, reason=reason, holder=holder)

    async def local_address(self) -> str:
        """The address of this host on the way to the current node; 127.0.0.1 if that is on this host."""
        parts = urlsplit(self.api.nodes.current)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            return facing(found[0][4])
        except (OSError, TimeoutError) as error:
            raise RegistryUnavailable(f"there is no way to {host}: {error}") from None

    async def close(self) -> None:
        await self.api.close()
