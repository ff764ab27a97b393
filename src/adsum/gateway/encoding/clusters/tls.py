"""TLS to instances whose scheme demands it, and at the gateway's own listeners."""

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
"""The name of the gateway's own certificate."""
TRANSPORT_MATCH_KEY: Final = "envoy.transport_socket_match"
"""The key of an endpoint's metadata that selects the transport socket of its connections."""
MAX_VERIFIED_IPS: Final = 1_024
"""IPs of one cluster against which certificates are verified; instances at further IPs are not reached over TLS.

For each IP, Envoy holds the certificate authorities once more. A `name` for all instances of a service costs nothing.
"""

_EXTENSION: Final = "envoy.transport_sockets.tls"
_TLS, _NAME, _IP = "tls", "name", "ip"


@dataclass(frozen=True, slots=True)
class TlsPeers:
    """The instances of a cluster with TLS: whether any is at a host name, and the IPs of the others."""

    has_host_names: bool
    ips: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.has_host_names or bool(self.ips)

    @staticmethod
    def from_instances(instances: Iterable[Instance]) -> TlsPeers:
        """Returns the TLS peers of the instances."""
        addresses = {instance.address for instance in instances if instance.scheme in TLS_SCHEMES}
        ips = {canonical_ip(address) for address in addresses if is_ip_address(address)}
        return TlsPeers(not all(map(is_ip_address, addresses)), tuple(sorted(ips)))


@lru_cache(maxsize=65_536)
def canonical_ip(ip: str) -> str:
    """Returns the IP in the form that Envoy gives to an IP in a certificate."""
    address = ip_address(ip)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address.compressed if mapped is None else f"::ffff:{mapped}"


def transport_metadata(address: str) -> Mapping[str, str]:
    """Returns the metadata that selects the transport socket of an endpoint with TLS: by host name, or by its IP."""
    return {_TLS: _IP, _IP: canonical_ip(address)} if is_ip_address(address) else {_TLS: _NAME}


def add_tls(message: Any, tls: UpstreamTls, peers: TlsPeers, *, http2: bool, roots: str) -> None:
    """Makes a cluster use TLS to these instances, each verified by its own name or IP, and plain text to the others.

    The metadata of each endpoint selects its transport. An endpoint with TLS that the cluster does not know yet is not
    reached, since nothing may be sent to it in plain text or unverified.
    """
    if not peers:
        return
    verified = tls.verify and not tls.name
    for ip in peers.ips[:MAX_VERIFIED_IPS] if verified else ():
        _add_match(message, f"{_IP} {ip}", {_TLS: _IP, _IP: ip}, _context(tls, http2, roots, ip=ip))
    by_name = _context(tls, http2, roots, ip="") if peers.has_host_names else _refusing_context(http2)
    _add_match(message, _NAME, {_TLS: _NAME}, by_name)
    other_ips = _refusing_context(http2) if verified or not peers.ips else _context(tls, http2, roots, ip="any")
    _add_match(message, _IP, {_TLS: _IP}, other_ips)
    plain = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=messages.any_message(RawBuffer()))
    message.transport_socket_matches.add(name="plain", transport_socket=plain).match.SetInParent()


def verification_problem(tls: UpstreamTls, peers: TlsPeers, roots: str) -> str:
    """Returns why some of these instances can't be verified and are not reached; "" if all can be verified."""
    if not tls.verify or not peers:
        return ""
    if not (tls.ca or roots):
        return (
            "the gateway's system has no file of certificate authorities to verify instances: "
            "install the package ca-certificates, or set the upstream's tls.ca"
        )
    if not tls.name and len(peers.ips) > MAX_VERIFIED_IPS:
        return (
            f"gateways verify the certificates of at most {MAX_VERIFIED_IPS} IPs of a service: "
            "set the upstream's tls.name to verify all instances by one name"
        )
    return ""


def _add_match(message: Any, name: str, metadata: Mapping[str, str], context: Any) -> None:
    socket = TransportSocket(name=_EXTENSION, typed_config=messages.any_message(context))
    message.transport_socket_matches.add(name=name, transport_socket=socket).match.update(metadata)


def _context(tls: UpstreamTls, http2: bool, roots: str, *, ip: str) -> Any:
    """Returns the TLS context for an instance at that IP ("": at a host name). An IP is not sent as SNI (RFC 6066)."""
    authorities = tls.ca or roots
    if tls.verify and not authorities:
        return _refusing_context(http2)
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


def _refusing_context(http2: bool) -> Any:
    """Returns a TLS context that accepts no certificate, for instances that must receive nothing."""
    context = UpstreamTlsContext()
    context.common_tls_context.alpn_protocols.append(_alpn(http2))
    context.common_tls_context.validation_context.verify_certificate_hash.append("00" * 32)
    return context


def _alpn(http2: bool) -> str:
    return "h2" if http2 else "http/1.1"


def certificate_secret(profile: GatewayProfile) -> Any:
    """Returns the secret with the gateway's certificate files.

    Envoy reads them again when a file is moved into their directory.
    """
    directory = str(PurePosixPath(profile.tls_certificate).parent)
    return Secret(
        name=SECRET_NAME,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(filename=profile.tls_certificate),
            private_key=DataSource(filename=profile.tls_key),
            watched_directory=WatchedDirectory(path=directory),
        ),
    )


def listener_transport() -> Any:
    """Returns the transport socket of listeners that use TLS with the gateway's own certificate."""
    context = DownstreamTlsContext()
    common = context.common_tls_context
    common.alpn_protocols.extend(["h2", "http/1.1"])
    common.tls_certificate_sds_secret_configs.add(name=SECRET_NAME, sds_config=messages.ads_source())
    return TransportSocket(name=_EXTENSION, typed_config=messages.any_message(context))
