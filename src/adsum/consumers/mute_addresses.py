"""Consumers that never acknowledge anything, counted by the address that they come from.

Anybody may open watches that acknowledge nothing, each under another id, and every drain would wait for them. This
bounds what they cost. It does not stop a consumer that acknowledges once, and nothing afterwards. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from adsum.consumers.consumer import Consumer

MAX_MUTES_PER_ADDRESS: Final = 8
"""Consumers of one address, one after the other, that acknowledged nothing at all; then no drain waits for a further
one of that address until it has acknowledged something. An honest program acknowledges within about a second of its
first view, and one acknowledgement from the address begins the count anew: a thousand of them behind one address don't
meet this."""
MAX_MUTE_ADDRESSES: Final = 10_000
"""How many addresses are remembered; past it the one of the earliest mute consumer is forgotten."""


class MuteAddresses:
    """The addresses from which mute consumers came, since one from there acknowledged last."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, set[str]] = OrderedDict()

    def add(self, consumer: Consumer) -> None:
        """It has acknowledged nothing in the time that it had. Noting it twice changes nothing."""
        ids = self._ids.setdefault(consumer.address, set())
        if len(ids) < MAX_MUTES_PER_ADDRESS:
            ids.add(consumer.id)
        if len(self._ids) > MAX_MUTE_ADDRESSES:
            self._ids.popitem(last=False)

    def remove(self, consumer: Consumer) -> None:
        """It said good-bye: it was too short-lived to acknowledge anything."""
        self._ids.get(consumer.address, set()).discard(consumer.id)

    def clear_address(self, consumer: Consumer) -> None:
        """It acknowledged something, and so its address is not suspect."""
        self._ids.pop(consumer.address, None)

    def is_suspect(self, consumer: Consumer) -> bool:
        """Whether it has to acknowledge something before drains wait for it, since it comes from a suspect address."""
        return len(self._ids.get(consumer.address, ())) >= MAX_MUTES_PER_ADDRESS
