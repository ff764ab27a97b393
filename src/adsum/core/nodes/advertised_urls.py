"""The URLs that nodes advertise to one another, and the contradictions between them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlsplit

from adsum.core.addresses import is_loopback_host
from adsum.core.nodes.sharding import Peer

ADVERTISE_REMEDY: Final = "start each with --advertise and the URL at which the others reach it"


def find_url_problems(nodes: Collection[Peer]) -> Sequence[str]:
    """Returns one sentence, with the remedy, for each URL that is wrong if all these nodes live at the same time.

    The sentences are in a fixed order.
    """
    names_by_url: dict[str, list[str]] = {}
    for node in nodes:
        if node.url:
            names_by_url.setdefault(node.url.rstrip("/"), []).append(node.name)
    problems = [
        f"{' and '.join(sorted(names))} advertise the same address {url}, where only one of them can be: "
        f"{ADVERTISE_REMEDY}"
        for url, names in sorted(names_by_url.items())
        if len(names) > 1
    ]
    loopback = {url for url in names_by_url if is_loopback(url)}
    if remote := min(names_by_url.keys() - loopback, default=""):
        problems += [
            f"{names_by_url[url][0]} advertises {url}, which no other host reaches, while {names_by_url[remote][0]} is "
            f"at {remote}: {ADVERTISE_REMEDY}"
            for url in sorted(loopback)
            if len(names_by_url[url]) == 1
        ]
    secure = {url for url in names_by_url if url.startswith("https://")}
    if open_urls := sorted(names_by_url.keys() - secure if secure else ()):
        problems.append(
            f"{names_by_url[open_urls[0]][0]} at {open_urls[0]} serves without TLS and tokens, while "
            f"{names_by_url[min(secure)][0]} at {min(secure)} requires them: stop the nodes without TLS, join them "
            "with lines of `adsum token invite --for node`, and start them with --secure"
        )
    return problems


class UrlProblems:
    """The URL problems that have lasted for `confirm_after` seconds.

    Shorter ones are usual: a node that was killed counts as living for a while, and its next run has the same URL.
    """

    def __init__(self, confirm_after: float) -> None:
        self._confirm_after = confirm_after
        self._since: dict[str, float] = {}
        self.confirmed: Sequence[str] = ()

    def update(self, nodes: Collection[Peer], now: float) -> Sequence[str]:
        """Records the present nodes. Returns the problems that are confirmed now and were not before."""
        self._since = {problem: self._since.get(problem, now) for problem in find_url_problems(nodes)}
        before = self.confirmed
        self.confirmed = [problem for problem, at in self._since.items() if now - at >= self._confirm_after]
        return [problem for problem in self.confirmed if problem not in before]


def is_loopback(url: str) -> bool:
    """Returns whether only this host reaches the URL, or //HOST:PORT. Malformed text, which a peer may send, is not."""
    try:
        return is_loopback_host(urlsplit(url).hostname or "")
    except ValueError:
        return False
