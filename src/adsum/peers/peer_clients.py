"""The clients of the other nodes of one registry, over mutual TLS if this node serves TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

from adsum import wire
from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.native.api import RegistryApi
from adsum.core.errors import AdsumError
from adsum.core.nodes.sharding import Peer
from adsum.peers.renewal_connection import RenewalConnections

MAX_PEER_CONNECTIONS: Final = 64
"""Nodes to which connections are kept open. Past it those of the node used longest ago are closed."""


class PeerNotSecure(AdsumError):
    """Another node serves no TLS, so that nobody could know who answers there."""


class PeerCertificates(Protocol):
    """The certificates with which a node calls the other nodes."""

    @property
    def version(self) -> int:
        """A number that grows whenever the certificates are replaced."""
        ...

    def client_context(self) -> ssl.SSLContext:
        """Returns the context of new connections: it presents this node, and trusts the authority of the registry."""
        ...


class PeerCredentials(ClientCredentials):
    """The credentials of a node for the other nodes: its certificate, and no token."""

    def __init__(self, certificates: PeerCertificates) -> None:
        super().__init__()
        self._certificates = certificates

    def make_ssl_context(self) -> ssl.SSLContext:
        return self._certificates.client_context()


class PeerClients:
    """Clients of other nodes, one a node. A node's next run has another id, though it has the same address."""

    def __init__(self, rng: Random, certificates: PeerCertificates | None = None) -> None:
        """`certificates`: None for a node that serves no TLS."""
        self._rng = rng
        self._certificates = certificates
        self._version = self._current_version
        self._apis: dict[str, RegistryApi] = {}
        self._renewals: dict[str, RenewalConnections] = {}
        self._retired: list[RegistryApi] = []
        """Clients with older certificates, whose last requests may be under way."""
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def _current_version(self) -> int:
        return self._certificates.version if self._certificates is not None else 0

    def api(self, peer: Peer) -> RegistryApi:
        """Returns the client of a node, with the present certificates. Raises `PeerNotSecure`."""
        if self._certificates is not None and not peer.url.startswith("https://"):
            raise PeerNotSecure(f"it is at {peer.url}, and this node calls others over TLS: start it with --secure")
        if self._version != self._current_version:
            self._retire_all()
        api = self._apis.pop(peer.id, None)
        if api is None:
            credentials = PeerCredentials(self._certificates) if self._certificates is not None else None
            api = RegistryApi([peer.url], rng=self._rng, credentials=credentials)
            api.headers[wire.FORWARDED_TO_HEADER] = peer.id
        self._apis[peer.id] = api
        if len(self._apis) > MAX_PEER_CONNECTIONS:
            oldest = next(iter(self._apis))
            self._in_background(self._apis.pop(oldest))
            self._close_renewals(oldest)
        return api

    async def renew(self, peer: Peer, leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        """Renews leases at a node. Raises what `api` and `RegistryApi.renew` raise."""
        api = self.api(peer)  # It also retires connections with older certificates.
        connections = self._renewals.get(peer.id)
        if connections is None:
            connections = self._renewals[peer.id] = RenewalConnections(peer.url, peer.id, self._context)
        if connections.is_usable and (renewed := await connections.renew(leases)) is not None:
            return renewed
        result = await api.renew(leases)
        connections.is_usable = True
        return result

    def _context(self) -> ssl.SSLContext | None:
        return self._certificates.client_context() if self._certificates is not None else None

    async def close(self) -> None:
        """Closes all connections. Idempotent."""
        apis = [*self._apis.values(), *self._retired]
        self._apis, self._retired = {}, []
        for id in [*self._renewals]:
            self._close_renewals(id)
        await asyncio.gather(*self._closing, *(api.close() for api in apis))

    def _retire_all(self) -> None:
        """Stops using clients with older certificates: an open connection keeps the certificate that it began with.

        Their requests under way end by themselves, so they are closed only at the next replacement.
        """
        self._version = self._current_version
        for api in self._retired:
            self._in_background(api)
        self._retired, self._apis = [*self._apis.values()], {}
        for id in [*self._renewals]:
            self._close_renewals(id)

    def _close_renewals(self, id: str) -> None:
        connections = self._renewals.pop(id, None)
        if connections is not None:
            connections.close()

    def _in_background(self, api: RegistryApi) -> None:
        task = asyncio.get_running_loop().create_task(api.close(), name="adsum-close-peer")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
