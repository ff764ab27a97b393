"""The source for an Adsum registry: one watch over Server-Sent Events for all services, requests for everything else.

Services join the watch and leave it while it lives, and each resumes from its own revision. A service that can't join
has a watch of its own. At a node of version 0.2 every service has: such a node lets none join. A quiet watch costs the
registry one heartbeat in 3 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from random import Random
from urllib.parse import urlsplit

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity, ServiceConsumers
from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.credentials.folder import OPERATOR_ROLE
from adsum.client.errors import RegistryUnavailable
from adsum.client.local_address import LOOPBACK, default_address, outbound_address_to_any
from adsum.client.native.api import RegistryApi
from adsum.client.native.hedged_requests import HEDGE_DELAY
from adsum.client.native.request_sender import REQUEST_TIMEOUT
from adsum.client.native.watching.registry_access import RegistryAccess
from adsum.client.native.watching.watch_pool import WatchPool
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.ports import Clock


class RegistrySource:
    """Implements `Source` with the native API."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        actor: str,
        consumer: ConsumerIdentity | None,
        clock: Clock,
        rng: Random,
        credentials: ClientCredentials | None = None,
    ) -> None:
        self.api = RegistryApi(urls, actor=actor, clock=clock, rng=rng, credentials=credentials)
        self.cache_fallback_delay = HEDGE_DELAY * len(urls)
        joined = credentials.joined if credentials is not None else None
        self._is_on_node_host = joined is not None and joined.role == OPERATOR_ROLE
        self._clock = clock
        self._watches = WatchPool(RegistryAccess(self.api, clock, rng))
        self._consumers = ServiceConsumers(consumer) if consumer is not None else None

    def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follows a service, switching to the next node when a connection breaks or a node hangs."""
        consumer = self._consumers.consumer_for(service) if self._consumers is not None else None
        return self._watches.follow(service, position, consumer)

    def send_goodbye(self, services: Sequence[str] = ()) -> Coroutine[None, None, None]:
        return self._send_goodbyes(self._consumers.retire(services) if self._consumers is not None else [])

    async def _send_goodbyes(self, goodbyes: Sequence[tuple[str, Sequence[str]]]) -> None:
        await asyncio.gather(*(self.api.send_goodbye(consumer, services) for consumer, services in goodbyes))

    async def register(self, service: str, id: str, body: wire.RegistrationBody) -> wire.WriteResult:
        return await self.api.register(service, id, body)

    async def renew(self, leases: Sequence[wire.LeaseBody], node_timeout: float) -> wire.RenewalResult:
        return await self.api.renew(leases, timeout=node_timeout)

    async def override(self, service: str, id: str, body: wire.OverrideBody) -> wire.WriteResult:
        return await self.api.override(service, id, body)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> wire.WriteResult:
        return await self.api.deregister(service, id, reason=reason, holder=holder)

    async def local_address(self) -> str:
        """Returns this host's address on the way to a node on another host; 127.0.0.1 if all are on this host.

        On the host of a node with tokens it is the address on the way to other hosts: such a node is for a network, and
        accepts no address that only this host reaches.
        """
        urls = map(urlsplit, self.api.nodes.order(self._clock.now()))
        hosts = [(url.hostname or "", url.port or (443 if url.scheme == "https" else 80)) for url in urls]
        try:
            address = await outbound_address_to_any(hosts, REQUEST_TIMEOUT)
        except OSError as error:
            raise RegistryUnavailable(str(error)) from None
        return default_address() if address == LOOPBACK and self._is_on_node_host else address

    async def close(self) -> None:
        await self.api.close()
