"""TLS: towards instances whose scheme asks for it, and at the gateway's own listeners."""

from __future__ import annotations

from collections.abc import Set
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import DataSource, TransportSocket, WatchedDirectory
from envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsCertificate
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext, UpstreamTlsContext

from adsum.gateway import messages
from adsum.gateway.shape import Shape
from adsum.gateway.upstreams import Tls

SECRET_NAME: Final = "gateway"
"""Names a gateway's own certificate."""
TLS_SCHEMES: Final = frozenset({"https", "grpcs", "h2", "wss"})
MATCH: Final = "envoy.transport_socket_match"
"""Under this key an endpoint's metadata says which transport it is reached by."""

_EXTENSION: Final = "envoy.transport_sockets.tls"


class Encryption(Enum):
    """How many of a service's instances speak TLS."""

    NONE = "none"
    SOME = "some"
    ALL = "all"

    @staticmethod
    def of(schemes: Set[str]) -> Encryption:
        if schemes and schemes <= TLS_SCHEMES:
            return Encryption.ALL
        return Encryption.SOME if schemes & TLS_SCHEMES else Encryption.NONE


@lru_cache(maxsize=65_536)  # Thousands of instances share a host, and it is asked again with every change.
def is_name(address: str) -> bool:
    """Whether it is a host name rather than an IP address."""
    try:
        ip_address(address)
    except ValueError:
        return True
    return False


def encrypt(message: Any, tls: Tls, encryption: Encryption, *, named: bool, http2: bool, roots: str) -> None:
    """Have a cluster speak TLS to the instances that ask for it."""
    if encryption is Encryption.NONE:
        return
    socket = TransportSocket(name=_EXTENSION, typed_config=messages.typed(_context(tls, named, http2, roots)))
    if encryption is Encryption.ALL:
        message.transport_socket.CopyFrom(socket)
        return
    matched = message.transport_socket_matches.add(name="tls", transport_socket=socket)
    matched.match.update({"tls": True})
    plain = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=messages.typed(RawBuffer()))
    message.transport_socket_matches.add(name="plain", transport_socket=plain).match.SetInParent()


def _context(tls: Tls, named: bool, http2: bool, roots: str) -> Any:
    context = UpstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.append("h2" if http2 else "http/1.1")
    if tls.name:
        context.sni = tls.name
    elif named:
        context.auto_host_sni = True
    if tls.verify:
        validation = common.validation_context
        validation.trusted_ca.filename = tls.ca or roots
        if tls.name:
            name = validation.match_typed_subject_alt_names.add()
            name.san_type = name.DNS
            name.matcher.exact = tls.name
        elif named:
            context.auto_sni_san_validation = True
    return context


def certificate(shape: Shape) -> Any:
    """The secret that names a gateway's files; Envoy reads them again when something is moved into their directory."""
    directory = str(PurePosixPath(shape.tls_certificate).parent)
    return Secret(
        name=SECRET_NAME,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(filename=shape.tls_certificate),
            private_key=DataSource(filename=shape.tls_key),
            watched_directory=WatchedDirectory(path=directory),
        ),
    )


def listening() -> Any:
    """The transport of listeners that speak TLS with the gateway's own certificate."""
    context = DownstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.extend(["h2", "http/1.1"])
    common.tls_certificate_sds_secret_configs.add(name=SECRET_NAME, sds_config=messages.ads())
    return TransportSocket(name=_EXTENSION, typed_config=messages.typed(context))
