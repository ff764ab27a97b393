"""TLS: towards instances whose scheme asks for it, and at the gateway's own listeners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import PurePosixPath
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import DataSource, TransportSocket, WatchedDirectory
from envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsCertificate
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext, UpstreamTlsContext

from adsum.core.addresses import is_ip_address
from adsum.core.model import Instance
from adsum.core.tls_schemes import TLS_SCHEMES
from adsum.gateway.encoding import messages
from adsum.gateway.intent.upstreams import UpstreamTls
from adsum.gateway.profile import GatewayProfile

SECRET_NAME: Final = "gateway"
"""Names a gateway's own certificate."""
TRANSPORT_MATCH_KEY: Final = "envoy.transport_socket_match"
"""Under this key an endpoint's metadata says which transport it is reached by."""
MAX_VERIFIED_IPS: Final = 1_024
"""IPs of one cluster that certificates are held against; past it, those at further ones are not reached over TLS.

Each costs Envoy the authorities once more. A `name` for all of a service's instances costs nothing.
"""

_EXTENSION: Final = "envoy.transport_sockets.tls"
_TLS, _NAME, _IP = "tls", "name", "ip"


@dataclass(frozen=True, slots=True)
class TlsPeers:
    """The instances of a cluster that speak TLS: whether any stands at a host name, and the IPs of all others."""

    has_host_names: bool
    ips: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.has_host_names or bool(self.ips)

    @staticmethod
    def from_instances(instances: Iterable[Instance]) -> TlsPeers:
        addresses = {each.address for each in instances if each.scheme in TLS_SCHEMES}
        ips = {canonical_ip(address) for address in addresses if is_ip_address(address)}
        return TlsPeers(not all(map(is_ip_address, addresses)), tuple(sorted(ips)))


@lru_cache(maxsize=65_536)
def canonical_ip(ip: str) -> str:
    """The IP address as Envoy writes the one that stands in a certificate."""
    address = ip_address(ip)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address.compressed if mapped is None else f"::ffff:{mapped}"


def transport_metadata(address: str) -> Mapping[str, str]:
    """What the metadata of an endpoint that speaks TLS says: whether it stands at a host name, or at which IP."""
    return {_TLS: _IP, _IP: canonical_ip(address)} if is_ip_address(address) else {_TLS: _NAME}


def add_tls(message: Any, tls: UpstreamTls, peers: TlsPeers, *, http2: bool, roots: str) -> None:
    """Have a cluster speak TLS to those instances, each held to its own name or IP, and plain text to the others.

    Every instance goes by its own metadata. One that speaks TLS and that the cluster does not know yet is not reached:
    nothing may be sent to it in plain text or unverified.
    """
    if not peers:
        return
    verified = tls.verify and not tls.name
    for ip in peers.ips[:MAX_VERIFIED_IPS] if verified else ():
        _match(message, f"{_IP} {ip}", {_TLS: _IP, _IP: ip}, _context(tls, http2, roots, ip=ip))
    named = _context(tls, http2, roots, ip="") if peers.has_host_names else _sealed(http2)
    _match(message, _NAME, {_TLS: _NAME}, named)
    other = _sealed(http2) if verified or not peers.ips else _context(tls, http2, roots, ip="any")
    _match(message, _IP, {_TLS: _IP}, other)
    plain = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=messages.any_message(RawBuffer()))
    message.transport_socket_matches.add(name="plain", transport_socket=plain).match.SetInParent()


def verification_problem(tls: UpstreamTls, peers: TlsPeers, roots: str) -> str:
    """Why some of those instances can't be verified, and so are not reached; "" if all can."""
    if not tls.verify or not peers:
        return ""
    if not (tls.ca or roots):
        return (
            "the gateway's system has no file of authorities to verify instances by: "
            "the package ca-certificates has one, or an upstream's tls.ca names one"
        )
    if not tls.name and len(peers.ips) > MAX_VERIFIED_IPS:
        return f"certificates of at most {MAX_VERIFIED_IPS} IPs of a service can be verified: an upstream's tls.name is one for all"
    return ""


def _match(message: Any, name: str, metadata: Mapping[str, str], context: Any) -> None:
    socket = TransportSocket(name=_EXTENSION, typed_config=messages.any_message(context))
    message.transport_socket_matches.add(name=name, transport_socket=socket).match.update(metadata)


def _context(tls: UpstreamTls, http2: bool, roots: str, *, ip: str) -> Any:
    """How one is spoken to that stands at that IP ("": at a host name). Nobody is asked for an IP (RFC 6066)."""
    authorities = tls.ca or roots
    if tls.verify and not authorities:
        return _sealed(http2)
    context = UpstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.append(_alpn(http2))
    if tls.name:
        context.sni = tls.name
    elif not ip:
        context.auto_host_sni = True
    if tls.verify:
        validation = common.validation_context
        validation.trusted_ca.filename = authorities
        if not (tls.name or ip):
            context.auto_sni_san_validation = True
            return context
        name = validation.match_typed_subject_alt_names.add()
        name.san_type = name.DNS if tls.name else name.IP_ADDRESS
        name.matcher.exact = tls.name or ip
    return context


def _sealed(http2: bool) -> Any:
    """How one is spoken to that nothing may be sent to: no certificate is taken."""
    context = UpstreamTlsContext()
    context.common_tls_context.alpn_protocols.append(_alpn(http2))
    context.common_tls_context.validation_context.verify_certificate_hash.append("00" * 32)
    return context


def _alpn(http2: bool) -> str:
    return "h2" if http2 else "http/1.1"


def certificate_secret(shape: GatewayProfile) -> Any:
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


def listener_transport() -> Any:
    """The transport of listeners that speak TLS with the gateway's own certificate."""
    context = DownstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.extend(["h2", "http/1.1"])
    common.tls_certificate_sds_secret_configs.add(name=SECRET_NAME, sds_config=messages.ads_source())
    return TransportSocket(name=_EXTENSION, typed_config=messages.any_message(context))
