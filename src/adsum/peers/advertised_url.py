"""The URL that a node over etcd advertises to the other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from adsum.client.local_address import LOOPBACK, outbound_address_to_any
from adsum.core.addresses import WILDCARD_ADDRESSES, format_host_port
from adsum.core.errors import Invalid
from adsum.core.nodes.advertised_urls import is_loopback
from adsum.etcd.address import EtcdAddress
from adsum.etcd.errors import EtcdError

ETCD_LOOKUP_TIMEOUT: Final = 5.0
"""Seconds that the look-up of the name of an etcd member may take."""
MEMBERS_TIMEOUT: Final = 1.0
"""Seconds that etcd has to list its members. Then all of them are assumed to be on one host. If that is wrong, the
nodes report it once they know one another (`core.nodes.advertised_urls`)."""

DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType({"http": 80, "https": 443})
"""The port of a URL that has none, by its scheme."""


def check_listen_address(listen: str, etcd: EtcdAddress, scheme: str = "http") -> None:
    """Raises `Invalid` if nodes on other hosts could not reach this one at its listen address.

    Clients of other nodes could not renew what such a node keeps. Members of etcd on other hosts show that there may be
    nodes on other hosts, too.
    """
    remote = [host for host in etcd.hosts if not is_loopback(f"//{host}")]
    if remote and is_loopback(f"//{listen}"):
        raise Invalid("listen", _unreachable_problem(f"{scheme}://{listen}", remote[0]))
    if not remote and _host(f"//{listen}") in WILDCARD_ADDRESSES:
        raise Invalid("advertise", "must say where other nodes reach this one, since it listens on every address")


async def resolve_advertised_url(url: str, etcd: EtcdAddress, rng: Random) -> str:
    """Returns the URL to advertise for a node that listens at `url`.

    It is `url` itself, or, for a node that listens on every address, the URL with the local address of connections to
    etcd. Raises `Invalid` if nodes on other hosts could not reach it, and etcd shows that there may be some.
    """
    if _host(url) not in WILDCARD_ADDRESSES:
        if is_loopback(url) and (hosts := await _member_hosts(etcd, rng)):
            raise Invalid("listen", _unreachable_problem(url, hosts))
        return url
    try:
        address = await outbound_address_to_any(etcd.host_ports, ETCD_LOOKUP_TIMEOUT)
    except OSError as error:
        raise Invalid("advertise", f"must say where other nodes reach this one, since {error}") from None
    if address == LOOPBACK:
        raise Invalid("advertise", f"must say where other nodes reach this one, since {etcd} is on this host")
    parts = urlsplit(url)
    return f"{parts.scheme}://{format_host_port(address, parts.port or DEFAULT_PORTS.get(parts.scheme, 80))}"


async def _member_hosts(address: EtcdAddress, rng: Random) -> str:
    """Returns the hosts of etcd's members if there are several; "" if there is one or etcd does not answer in time."""
    from adsum.etcd.client import EtcdClient  # Reading the settings does not need gRPC.

    client = EtcdClient(address, rng)
    try:
        async with asyncio.timeout(MEMBERS_TIMEOUT):
            hosts = {_host(url) for member in await client.members() for url in member.peer_urls}
    except (EtcdError, TimeoutError):
        return ""
    finally:
        await client.close()
    return ", ".join(sorted(hosts)) if len(hosts) > 1 else ""


def _unreachable_problem(url: str, etcd_hosts: str) -> str:
    return (
        f"must be an address that nodes on other hosts reach, such as 10.0.0.5:23786, since etcd is at {etcd_hosts}; "
        f"if all nodes are on this host, add --advertise {url}"
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
