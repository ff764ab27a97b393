"""The addresses at which hosts of the network reach the nodes of the registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from adsum.core.addresses import WILDCARD_ADDRESSES, format_host_port, split_host_port


class RegistryAddresses(NamedTuple):
    """The addresses of the nodes, this one first: `urls` of the HTTP servers, and HOST:PORT of xDS."""

    urls: Sequence[str] = ()
    xds: Sequence[str] = ()


def registry_addresses(
    urls: Iterable[str], xds: str, peer_urls: Sequence[str], reachable_host: str
) -> RegistryAddresses:
    """Returns the addresses of this node and its peers, without repetition.

    `urls` and `xds` are those of this node; `xds` is "" if it serves none. `reachable_host` replaces addresses such as
    0.0.0.0, which only mean every address of this host; "" if none is known, then they are left out. Peers are taken to
    serve xDS on the same port as this node.
    """
    own = [_reachable_url(url, reachable_host) for url in urls]
    all_urls = list(dict.fromkeys(filter(None, [*own, *peer_urls])))
    if not xds:
        return RegistryAddresses(all_urls)
    host, port = split_host_port(xds)
    hosts = [_reachable(host, reachable_host), *(urlsplit(url).hostname or "" for url in peer_urls)]
    return RegistryAddresses(all_urls, list(dict.fromkeys(format_host_port(host, int(port)) for host in hosts if host)))


def _reachable_url(url: str, reachable_host: str) -> str:
    parts = urlsplit(url)
    if parts.hostname not in WILDCARD_ADDRESSES or parts.port is None:
        return url
    return reachable_host and f"{parts.scheme}://{format_host_port(reachable_host, parts.port)}"


def _reachable(host: str, reachable_host: str) -> str:
    return reachable_host if host in WILDCARD_ADDRESSES else host
