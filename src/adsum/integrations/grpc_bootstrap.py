"""Builds the xDS bootstrap of gRPC clients, which names the registry nodes that they follow (gRFC A27)."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from adsum.client.credentials.xds import XdsCredentials, find_joined_registry, joined_xds_credentials
from adsum.client.native.nodes import DEFAULT_URL, parse_urls
from adsum.core.addresses import format_host_port
from adsum.core.errors import Invalid
from adsum.core.validation import quoted, without_credentials

XDS_PORT: Final = 23787
"""The default port at which a registry node serves xDS to gRPC clients."""
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
"""A name that DNS can resolve. Longer names are refused."""


REFRESH_INTERVAL: Final = "60s"
"""The time after which a client reads its certificate again. It is renewed long before it expires."""


def grpc_bootstrap(
    xds: str = "", url: str = "", *, joined: bool = False, credentials: XdsCredentials | None = None
) -> dict[str, Any]:
    """Returns the bootstrap for the nodes at `xds` (HOST:PORT,…). Raises `Invalid`.

    Without `xds`, the nodes are those of the registry at `url`, if this host has joined it, else at port `XDS_PORT` of
    the hosts in `url`. Clients speak TLS with `credentials`, by default those of a host that has joined the registry
    (gRFC A65); without any they speak plain text. The bootstrap holds the paths of the files, and no secret.

    Each node is one entry of `xds_servers`, in a form that the gRPC libraries of all languages accept. A library
    follows the first entry that answers, and no other while that node is away (gRFC A71). With `joined`, all nodes form
    one entry if they are IP addresses of one family, and the library switches to another node at once. C++, Python and
    Node.js accept that form; Go and Java reject it. Over TLS they stay apart: a client compares the certificate with
    the whole entry.
    """
    registry = find_joined_registry(url)
    named = [_node_address(text.strip()) for text in xds.split(",") if text.strip()]
    if not named and registry is not None:
        named = [_node_address(address) for address in registry.xds]
    addresses = list(dict.fromkeys(named or _default_addresses(url or DEFAULT_URL)))
    if credentials is None:
        credentials = joined_xds_credentials(addresses, registry)
    scheme = _common_scheme(addresses) if joined and credentials is None and len(addresses) > 1 else ""
    uris = [f"{scheme}:{','.join(addresses)}"] if scheme else [_uri(address) for address in addresses]
    channel_credentials = _channel_credentials(credentials)
    servers = [
        {"server_uri": uri, "channel_creds": [channel_credentials], "server_features": ["xds_v3"]} for uri in uris
    ]
    # Node.js rejects a node without a locality; an empty one is enough.
    return {"xds_servers": servers, "node": {"id": f"{platform.node()}-{os.getpid()}", "locality": {}}}


def _channel_credentials(credentials: XdsCredentials | None) -> dict[str, Any]:
    if credentials is None:
        return {"type": "insecure"}
    files = {"ca_certificate_file": str(credentials.authority)}
    if credentials.certificate is not None and credentials.key is not None:
        files |= {"certificate_file": str(credentials.certificate), "private_key_file": str(credentials.key)}
    return {"type": "tls", "config": {**files, "refresh_interval": REFRESH_INTERVAL}}


def _node_address(text: str) -> str:
    """Returns `text` as HOST:PORT, with an IPv6 address in brackets. Raises `Invalid`."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535):
        raise Invalid("xds", f"must be HOST:PORT, or several separated by commas, not {quoted(text)}")
    return format_host_port(_host(host, text), int(port))


def _host(host: str, text: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]")
    address = _ip_address(host[1:-1] if bracketed else host)
    if isinstance(address, IPv6Address):
        if not bracketed:
            raise Invalid("xds", f"must have its IPv6 address in brackets, as in [::1]:{XDS_PORT}, not {quoted(text)}")
        if address.scope_id:
            raise Invalid("xds", f"must not have an IPv6 zone, which some clients reject: {quoted(text)}")
        return str(address)
    if bracketed or not (address or HOST_NAME.fullmatch(host)):
        raise Invalid("xds", f"must be HOST:PORT with a host name or an IP address, not {quoted(text)}")
    return host


def _default_addresses(url: str) -> list[str]:
    urls = parse_urls(url)
    if any(urlsplit(part).scheme not in ("http", "https") for part in urls):
        raise Invalid(
            "xds", f"must be given: gRPC clients need a registry, and {without_credentials(urls[0])} is not one"
        )
    return [format_host_port(urlsplit(part).hostname or "", XDS_PORT) for part in urls]


def _uri(address: str) -> str:
    """Returns the URI of a node. A name gets a scheme; an IP address gets none, because Go and Java reject it."""
    return address if _ip_address_of(address) else f"dns:///{address}"


def _common_scheme(addresses: Sequence[str]) -> str:
    """Returns the scheme under which C++ accepts several addresses in one URI; "" if they are not of one family."""
    versions = {ip.version if (ip := _ip_address_of(address)) else 0 for address in addresses}
    version = versions.pop()
    return f"ipv{version}" if version and not versions else ""


def _ip_address_of(address: str) -> IPv4Address | IPv6Address | None:
    return _ip_address(address.rpartition(":")[0].strip("[]"))


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
