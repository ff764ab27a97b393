"""The xDS bootstrap that gRPC clients read: which registry nodes they follow (gRFC A27, "bootstrap file")."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from adsum.client.native.nodes import DEFAULT_URL, parse_urls
from adsum.core.addresses import format_host_port
from adsum.core.errors import Invalid
from adsum.core.validation import quoted, without_credentials

XDS_PORT: Final = 23787
"""The port at which a registry node talks to gRPC clients by default."""
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
"""A name that DNS can resolve; longer ones are refused."""


def grpc_bootstrap(xds: str = "", url: str = "", *, joined: bool = False) -> dict[str, Any]:
    """The bootstrap for the nodes at `xds`: HOST:PORT, several separated by commas; without, `XDS_PORT` at the hosts of
    `url`. Raises `Invalid`.

    Each node is one entry of `xds_servers`, in a form that the gRPC libraries of all languages accept. A library
    follows the first entry that answers, and while that node is away it follows nobody else (gRFC A71). `joined` puts
    all nodes into one entry if they are IP addresses of one family, so that the library moves on to another node at
    once. C++, Python and Node.js accept that form; Go and Java refuse it.
    """
    given = [_place(text.strip()) for text in xds.split(",") if text.strip()]
    places = list(dict.fromkeys(given or _default_places(url or DEFAULT_URL)))
    scheme = _common_scheme(places) if joined and len(places) > 1 else ""
    uris = [f"{scheme}:{','.join(places)}"] if scheme else [_uri(place) for place in places]
    servers = [
        {"server_uri": uri, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]} for uri in uris
    ]
    # Node.js refuses a node without a locality, also an empty one.
    return {"xds_servers": servers, "node": {"id": f"{platform.node()}-{os.getpid()}", "locality": {}}}


def _place(text: str) -> str:
    """`text` as HOST:PORT, an IPv6 address in brackets. Raises `Invalid`."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535):
        raise Invalid("xds", f"must be HOST:PORT, several separated by commas, not {quoted(text)}")
    return format_host_port(_host(host, text), int(port))


def _host(host: str, text: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]")
    address = _address(host[1:-1] if bracketed else host)
    if isinstance(address, IPv6Address):
        if not bracketed:
            raise Invalid("xds", f"must have an IPv6 address in brackets, such as [::1]:{XDS_PORT}, not {quoted(text)}")
        if address.scope_id:
            raise Invalid("xds", f"must have no zone, which not every client accepts, not {quoted(text)}")
        return str(address)
    if bracketed or not (address or HOST_NAME.fullmatch(host)):
        raise Invalid("xds", f"must be HOST:PORT with the name or the IP address of a host, not {quoted(text)}")
    return host


def _default_places(url: str) -> list[str]:
    urls = parse_urls(url)
    if any(urlsplit(each).scheme not in ("http", "https") for each in urls):
        raise Invalid(
            "xds", f"must be given: gRPC clients follow a registry, and {without_credentials(urls[0])} is none"
        )
    return [format_host_port(urlsplit(each).hostname or "", XDS_PORT) for each in urls]


def _uri(place: str) -> str:
    """A name with its scheme, an IP address without: Go and Java refuse the schemes of IP addresses."""
    return place if _address_of(place) else f"dns:///{place}"


def _common_scheme(places: Sequence[str]) -> str:
    """The scheme under which C++ takes several addresses in one URI; "" if they are not all of one family."""
    versions = {address.version if (address := _address_of(place)) else 0 for place in places}
    version = versions.pop()
    return f"ipv{version}" if version and not versions else ""


def _address_of(place: str) -> IPv4Address | IPv6Address | None:
    return _address(place.rpartition(":")[0].strip("[]"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
