"""Where a node over etcd says that the others reach it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final
from urllib.parse import urlsplit

from adsum.client.local_address import LOOPBACK, outbound_address_to_any
from adsum.core.addresses import format_host_port
from adsum.core.errors import Invalid
from adsum.core.nodes.advertised_urls import is_loopback
from adsum.etcd.address import EtcdAddress
from adsum.etcd.errors import EtcdError

WILDCARD_ADDRESSES: Final = ("0.0.0.0", "::")  # noqa: S104 - to compare with
LOOKUP_TIMEOUT: Final = 5.0
"""Seconds that looking up the name of a member of etcd may take."""
MEMBERS_TIMEOUT: Final = 1.0
"""Seconds that etcd has to name its members; then it is taken to be on one host, and what can't be right about where
nodes are is told when they meet (`core.advertised`)."""


def check_listen_address(listen: str, etcd: EtcdAddress) -> None:
    """Refuse to listen where nodes on other hosts can't be told to reach us. Raises `Invalid`.

    What such a node keeps would be lost to the clients of the others. Members of etcd on other hosts show that nodes
    may be there, too.
    """
    elsewhere = [each for each in etcd.hosts if not is_loopback(f"//{each}")]
    if elsewhere and is_loopback(f"//{listen}"):
        raise Invalid("listen", _needs_an_address(f"http://{listen}", elsewhere[0]))
    if not elsewhere and _host(f"//{listen}") in WILDCARD_ADDRESSES:
        raise Invalid("advertise", "must say where other nodes reach this one, since it listens on every address")


async def resolve_advertised_url(url: str, etcd: EtcdAddress, rng: Random) -> str:
    """`url` of a node that listens on one address; of one that listens on all, with the address that faces etcd.

    Raises `Invalid` if nodes on other hosts don't reach us there, as far as etcd shows that there may be some.
    """
    if _host(url) not in WILDCARD_ADDRESSES:
        if is_loopback(url) and (elsewhere := await _members_elsewhere(etcd, rng)):
            raise Invalid("listen", _needs_an_address(url, elsewhere))
        return url
    try:
        address = await outbound_address_to_any(etcd.host_ports, LOOKUP_TIMEOUT)
    except OSError as error:
        raise Invalid("advertise", f"must say where other nodes reach this one, since {error}") from None
    if address == LOOPBACK:
        raise Invalid("advertise", f"must say where other nodes reach this one, since {etcd} is on this host")
    return f"http://{format_host_port(address, urlsplit(url).port or 80)}"


async def _members_elsewhere(place: EtcdAddress, rng: Random) -> str:
    """The hosts of etcd's members if there are several, as far as it answers at once; else ""."""
    from adsum.etcd.client import EtcdClient  # Settings are read without gRPC.

    etcd = EtcdClient(place, rng)
    try:
        async with asyncio.timeout(MEMBERS_TIMEOUT):
            hosts = {_host(url) for each in await etcd.members() for url in each.peer_urls}
    except (EtcdError, TimeoutError):
        return ""
    finally:
        await etcd.close()
    return ", ".join(sorted(hosts)) if len(hosts) > 1 else ""


def _needs_an_address(url: str, elsewhere: str) -> str:
    return (
        f"must be an address that nodes on other hosts reach, such as 10.0.0.5:23786, since etcd is at {elsewhere}; if "
        f"all nodes are on this host, say so by --advertise {url}"
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
