"""Mute consumers, which never acknowledge anything, counted by address.

A client may open watches that acknowledge nothing, each under another id, and every drain would wait for them. This
bounds the delay. It does not stop a consumer that acknowledges once and nothing afterwards. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from adsum.consumers.consumer import Consumer

MAX_MUTES_PER_ADDRESS: Final = 8
"""Mute consumers of one address in a row. Past it drains wait for a further consumer of that address only after it has
acknowledged something. An honest program acknowledges within about a second of its first view, and one acknowledgement
from the address resets the count, so a thousand honest programs behind one address never reach it."""
MAX_MUTE_ADDRESSES: Final = 10_000
"""Addresses that are remembered. Past it the address of the earliest mute consumer is forgotten."""


class MuteAddresses:
    """The addresses of mute consumers, counted since the last acknowledgement from each address."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, set[str]] = OrderedDict()

    def add(self, consumer: Consumer) -> None:
        """Counts a consumer that has acknowledged nothing in time. Adding it twice has no effect."""
        ids = self._ids.setdefault(consumer.address, set())
        if len(ids) < MAX_MUTES_PER_ADDRESS:
            ids.add(consumer.id)
        if len(self._ids) > MAX_MUTE_ADDRESSES:
            self._ids.popitem(last=False)

    def remove(self, consumer: Consumer) -> None:
        """Removes a consumer that said good-bye: it was too short-lived to acknowledge anything."""
        self._ids.get(consumer.address, set()).discard(consumer.id)

    def clear_address(self, consumer: Consumer) -> None:
        """Resets the count of the consumer's address, because the consumer acknowledged something."""
        self._ids.pop(consumer.address, None)

    def is_suspect(self, consumer: Consumer) -> bool:
        """Returns whether the consumer comes from a suspect address, and must acknowledge before drains wait for it."""
        return len(self._ids.get(consumer.address, ())) >= MAX_MUTES_PER_ADDRESS
