"""Where a node over etcd says that the others reach it."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from adsum.client.address import LOOPBACK, facing_any
from adsum.core.advertised import is_loopback
from adsum.core.errors import AdsumError, Invalid
from adsum.etcd.place import Place

EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - to compare with
LOOK_UP: Final = 5.0
"""Seconds that looking up the name of a member of etcd may take."""


def check(listen: str, etcd: Place) -> None:
    """Refuse to listen where nodes on other hosts can't be told to reach us. Raises `Invalid`.

    What such a node keeps would be lost to the clients of the others. Members of etcd on other hosts show that nodes
    may be there, too.
    """
    elsewhere = _elsewhere(etcd)
    if elsewhere and is_loopback(f"//{listen}"):
        raise Invalid(
            "listen",
            f"must be an address that nodes on other hosts reach, such as 10.0.0.5:23786, since etcd is at "
            f"{elsewhere[0]}; if all nodes are on this host, say so by --advertise http://{listen}",
        )
    if not elsewhere and _host(f"//{listen}") in EVERY_ADDRESS:
        raise Invalid("advertise", "must say where other nodes reach this one, since it listens on every address")


async def url_for_others(url: str, etcd: Place) -> str:
    """`url` of a node that listens on one address; of one that listens on all, with the address that faces etcd.

    Raises `AdsumError` if there is none that others reach.
    """
    if _host(url) not in EVERY_ADDRESS:
        return url
    try:
        address = await facing_any(etcd.members, LOOK_UP)
    except OSError as error:
        raise AdsumError(f"{error}; --advertise says where other nodes reach this one") from None
    if address == LOOPBACK:
        raise AdsumError(f"{etcd} is on this host, so --advertise must say where other nodes reach this one")
    return f"http://{f'[{address}]' if ':' in address else address}:{urlsplit(url).port}"


def _elsewhere(etcd: Place) -> list[str]:
    """The members that are not on this host, as far as their names tell."""
    return [each for each in etcd.hosts if not is_loopback(f"//{each}")]


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
