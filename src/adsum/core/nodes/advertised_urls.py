"""Where nodes say that others reach them, and what can't be right about it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlsplit

from adsum.core.nodes.sharding import Peer

REMEDY: Final = "start each with --advertise and the URL at which the others reach it"


def find_url_problems(nodes: Collection[Peer]) -> Sequence[str]:
    """A sentence, with the remedy, for whatever can't be right if these live at the same time; in one order."""
    at: dict[str, list[str]] = {}
    for node in nodes:
        if node.url:
            at.setdefault(node.url.rstrip("/"), []).append(node.name)
    found = [
        f"{' and '.join(sorted(names))} advertise the same address {url}, where only one of them can be: {REMEDY}"
        for url, names in sorted(at.items())
        if len(names) > 1
    ]
    near = {url for url in at if is_loopback(url)}
    if far := min(at.keys() - near, default=""):
        found += [
            f"{at[url][0]} advertises {url}, which no other host reaches, while {at[far][0]} is at {far}: {REMEDY}"
            for url in sorted(near)
            if len(at[url]) == 1
        ]
    return found


class UrlProblems:
    """What has been doubtful for longer than `confirm_after` seconds.

    It may be so for a moment: a node that was killed counts as living for a while, and its next run is where it was.
    """

    def __init__(self, confirm_after: float) -> None:
        self._patience = confirm_after
        self._since: dict[str, float] = {}
        self.confirmed: Sequence[str] = ()

    def update(self, nodes: Collection[Peer], now: float) -> Sequence[str]:
        """See how the nodes are now; what has become certain by that."""
        self._since = {each: self._since.get(each, now) for each in find_url_problems(nodes)}
        before, self.confirmed = (
            self.confirmed,
            [each for each, at in self._since.items() if now - at >= self._patience],
        )
        return [each for each in self.confirmed if each not in before]


def is_loopback(url: str) -> bool:
    """Whether only this host reaches that URL, or //HOST:PORT; False for what is neither, as others may write it."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
