"""The certificates with which a node calls the other nodes of its registry."""

from __future__ import annotations

import ssl
from pathlib import Path

from adsum.node_security.authorities import ExternalAuthority, RegistryAuthority
from adsum.node_security.server_certificates import NodeCertificates, load_pair


class NodePeerCertificates:
    """Implements `peers.peer_clients.PeerCertificates`: the node presents the certificate that it serves with.

    It trusts the authority of the registry alone. With certificates of the operator it trusts the root of their chain,
    the authorities of clients, and those of this system.
    """

    def __init__(
        self, certificates: NodeCertificates, authority: RegistryAuthority | ExternalAuthority, folder: Path
    ) -> None:
        """`folder` is a private one for files that exist for an instant."""
        self._certificates = certificates
        self._authority = authority
        self._folder = folder
        self._context: tuple[int, ssl.SSLContext] | None = None

    @property
    def version(self) -> int:
        return self._certificates.version

    def client_context(self) -> ssl.SSLContext:
        if self._context is None or self._context[0] != self.version:
            self._context = self.version, self._make_context()
        return self._context[1]

    def _make_context(self) -> ssl.SSLContext:
        served, authority = self._certificates.served, self._authority.certificate_pem().decode("ascii")
        if self._authority.is_external:
            context = ssl.create_default_context()
            authority += served.authorities_pem.decode("ascii")
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if authority:
            context.load_verify_locations(cadata=authority)
        load_pair(context, served.pair, self._folder, "data")
        return context
