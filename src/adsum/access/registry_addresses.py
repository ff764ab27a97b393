"""The addresses at which hosts of the network reach the nodes of the registry."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from adsum.core.addresses import WILDCARD_ADDRESSES, format_host_port, split_host_port


class RegistryAddresses(NamedTuple):
    """The addresses of the nodes, this one first: `urls` of the HTTP servers, and HOST:PORT of xDS."""

    urls: Sequence[str] = ()
    xds: Sequence[str] = ()


def registry_addresses(
    listen: Iterable[str],
    xds: Iterable[str],
    peer_urls: Sequence[str],
    *,
    advertised: str = "",
    certified: Sequence[str] = (),
    outbound: str = "",
) -> RegistryAddresses:
    """Returns the addresses of this node, and of its peers, which are taken to serve xDS on the same port.

    `listen` and `xds` are the addresses, HOST:PORT, at which this node listens. `advertised` is the URL that it
    advertises, "" if none is set. `certified` are the names and addresses in its certificate: others can't be verified.
    `outbound` is the address of this host on its default route, "" if it has none.
    """
    hosts = [urlsplit(advertised).hostname or ""] if advertised else []

    def reachable(address: str) -> list[str]:
        host, port = split_host_port(address)
        return [format_host_port(one, int(port)) for one in hosts or _hosts(host, certified, outbound)]

    own = [advertised] if advertised else [f"https://{one}" for address in listen for one in reachable(address)]
    own_xds = [one for address in xds for one in reachable(address)]
    peers = [urlsplit(url).hostname or "" for url in peer_urls]
    port = int(split_host_port(own_xds[0])[1]) if own_xds else 0
    peer_xds = [format_host_port(host, port) for host in peers if host and port]
    return RegistryAddresses(_unique([*own, *peer_urls]), _unique([*own_xds, *peer_xds]))


def _hosts(listen: str, certified: Sequence[str], outbound: str) -> list[str]:
    """Returns the names and addresses of a listener at this address, as other hosts reach it, the best one first."""
    host = outbound if listen in WILDCARD_ADDRESSES else listen
    if host and host in certified:
        return [host]
    return [name for name in certified if not _is_local(name)]


def _is_local(name: str) -> bool:
    """Returns whether a name of a certificate is only for callers on this host, or stands for several names."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.startswith("*") or name.partition(".")[0] == "localhost"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
