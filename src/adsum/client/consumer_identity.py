"""Who routes: the identity under which a registry knows a program over all its connections and nodes."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MAX_NAME_LENGTH: Final = 128
"""Characters of a consumer's name; a longer name is cut off."""


class ConsumerIdentity:
    """A program that routes. Its id stays the same for its life; a forked child gets an id of its own."""

    def __init__(self, name: str = "") -> None:
        """`name` is for people, who read it when a drain waits for this program; by default `default_consumer_name()`."""
        self._name = name
        self._id = secrets.token_hex(16)
        self._pid = os.getpid()

    @property
    def id(self) -> str:
        """32 hex digits."""
        if self._pid != os.getpid():
            self._id, self._pid = secrets.token_hex(16), os.getpid()
        return self._id

    def successor(self) -> ConsumerIdentity:
        """Another consumer of the same name."""
        return ConsumerIdentity(self._name)

    @property
    def name(self) -> str:
        """One line of at most `MAX_NAME_LENGTH` characters."""
        return one_line(self._name or default_consumer_name())


class ServiceConsumers:
    """As which consumer a program follows each service: as one for all of them, until it has said good-bye to one.

    A good-bye may arrive late. So whoever follows the service afterwards is another consumer, which the good-bye can't
    end.
    """

    def __init__(self, consumer: ConsumerIdentity) -> None:
        self._consumer = consumer
        self._after: dict[str, ConsumerIdentity] = {}
        """By service that a good-bye was said to: who follows it since."""

    def consumer_for(self, service: str) -> ConsumerIdentity:
        """The consumer that follows the service from now on."""
        return self._after.get(service, self._consumer)

    def retire(self, services: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
        """Follow these services (none: all) no more. The good-byes that are to be said: the id of a consumer, and the
        services (none: all).
        """
        if not services:
            ended = [self._consumer, *self._after.values()]
            self._consumer, self._after = self._consumer.successor(), {}
            return [(each.id, ()) for each in ended]
        ended = [self.consumer_for(service) for service in services]
        self._after |= {service: self._consumer.successor() for service in services}
        return [(each.id, [service]) for each, service in zip(ended, services, strict=True)]


def default_consumer_name() -> str:
    """The program, its process and its host: `checkout.py[4711]@web1`."""
    return f"{_program()}[{os.getpid()}]@{platform.node()}"


def one_line(text: str) -> str:
    """The text without characters that end a line or can't be printed, cut off at `MAX_NAME_LENGTH`."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MAX_NAME_LENGTH]


def _program() -> str:
    path = Path(sys.argv[0] if sys.argv else "")
    if path.name == "__main__.py":  # python -m package
        return path.parent.name
    return path.name if path.name not in ("", "-c", "-m") else "python"
