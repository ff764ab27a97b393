"""What is known of clients, and what they reject: for people, metrics and logs."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adsum.gateway.resources import Kind

MAX_REMEMBERED: Final = 1_024
"""Different rejections that are remembered, to be logged once; the one not heard for longest is forgotten."""

_log = logging.getLogger("adsum.xds")


@dataclass(frozen=True, slots=True)
class KindStatus:
    """One kind of resources at one client: the revision of what was sent and acknowledged last, and what it rejects."""

    sent: int
    acked: int
    rejection: str


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One client. `since` is on the wall clock; `revision` is what it routes by, 0 while that is not known."""

    node: str
    client: str
    peer: str
    since: float
    revision: int
    kinds: Mapping[Kind, KindStatus]

    @property
    def rejections(self) -> dict[str, str]:
        """What it rejects, by kind, in its own words."""
        return {word(kind): each.rejection for kind, each in self.kinds.items() if each.rejection}


class Rejections:
    """Counts rejections by kind, and logs each distinct one once."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._heard: OrderedDict[tuple[Kind, str], None] = OrderedDict()

    def add(self, kind: Kind, node: str, words: str) -> None:
        self.count[word(kind)] += 1
        known = (kind, words) in self._heard
        self._heard[kind, words] = None
        self._heard.move_to_end((kind, words))
        if len(self._heard) > MAX_REMEMBERED:
            self._heard.popitem(last=False)
        if not known:
            _log.warning("%s rejects its %s, and goes on with those it had: %s", node, word(kind), words)


def word(kind: Kind) -> str:
    """A kind as people call it."""
    return f"{kind.name.lower().removesuffix('s')}s"
