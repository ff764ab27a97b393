"""TLS of the gRPC server: its credentials, and the certificates of its peers."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import grpc

from adsum.outage_log import OutageLog
from adsum.ports import ServerCertificates

PEER_CERTIFICATE: Final = "x509_pem_cert"
"""The property of a connection that has the client certificate as PEM (GRPC_X509_PEM_CERT_PROPERTY_NAME)."""

_log = logging.getLogger("adsum.grpc")


class CertificateFetcher:
    """Returns the certificate for the next connection to grpc, which calls it at each handshake in a thread."""

    def __init__(self, certificates: ServerCertificates, on_handshake: Callable[[], None] = lambda: None) -> None:
        """`on_handshake` is called at the beginning of each handshake, in a thread."""
        self._certificates = certificates
        self._on_handshake = on_handshake
        self._version = certificates.version
        self.initial = self._configuration()
        # Each handshake tries again, and anyone can cause one: only the first failure is logged.
        self._outage = OutageLog(
            _log,
            "the new certificate can't be used for gRPC, the last one stays: %s",
            "the new certificate is used for gRPC",
        )

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the certificate if it was replaced since the last call, otherwise None, which keeps the last one."""
        self._on_handshake()
        version = self._certificates.version
        if version == self._version:
            return None
        try:
            configuration = self._configuration()
        except Exception as error:  # grpc would refuse the connection.
            self._outage.failed(error)
            return None
        self._outage.recovered()
        self._version = version
        return configuration

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [self._certificates.key_pair()], self._certificates.client_authorities()
        )


def server_credentials(
    certificates: ServerCertificates, on_handshake: Callable[[], None] = lambda: None
) -> grpc.ServerCredentials:
    """Returns credentials that require client certificates, and use the newest certificate for each connection."""
    fetcher = CertificateFetcher(certificates, on_handshake)
    return grpc.dynamic_ssl_server_credentials(
        fetcher.initial,
        fetcher,  # type: ignore[arg-type]  # grpc documents that it may return None
        require_client_authentication=True,
    )


def peer_certificate(properties: Mapping[str, Iterable[bytes]] | None) -> bytes:
    """Returns the client certificate (DER) from the properties of a connection, empty if it has none."""
    for pem in (properties or {}).get(PEER_CERTIFICATE, ()):
        return ssl.PEM_cert_to_DER_cert(pem.decode())
    return b""
