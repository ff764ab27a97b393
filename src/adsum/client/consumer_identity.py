"""The identity of a consumer: its id and name, by which a registry knows it over all its connections and nodes."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

MAX_NAME_LENGTH: Final = 128
"""Characters of a consumer's name; a longer name is cut."""


class ConsumerIdentity:
    """The id and name of a consumer. The id stays the same for the life of the process; a forked child has its own."""

    def __init__(self, name: str = "") -> None:
        """`name` is shown to people when a drain waits for this program; default: `default_consumer_name()`."""
        self._name = name
        self._id = secrets.token_hex(16)
        self._pid = os.getpid()

    @property
    def id(self) -> str:
        """The id, 32 hex digits."""
        if self._pid != os.getpid():
            self._id, self._pid = secrets.token_hex(16), os.getpid()
        return self._id

    def successor(self) -> ConsumerIdentity:
        """Returns a new identity with the same name."""
        return ConsumerIdentity(self._name)

    @property
    def name(self) -> str:
        """The name for people, one line of at most `MAX_NAME_LENGTH` characters."""
        return one_line(self._name or default_consumer_name())


class ServiceConsumers:
    """The identities under which a program follows services: one for all, until it sends a good-bye for a service.

    A service that is followed again after its good-bye is followed under a new identity. A good-bye that arrives late
    does not end that one.
    """

    def __init__(self, consumer: ConsumerIdentity) -> None:
        self._consumer = consumer
        self._successors: dict[str, ConsumerIdentity] = {}
        """Service → the identity that follows it since its good-bye."""

    def consumer_for(self, service: str) -> ConsumerIdentity:
        """Returns the identity that follows the service from now on."""
        return self._successors.get(service, self._consumer)

    def retire(self, services: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
        """Stops following these services (none: all) under their identities.

        Returns the good-byes to send: pairs of the id of a consumer and its services (none: all).
        """
        if not services:
            retired = [self._consumer, *self._successors.values()]
            self._consumer, self._successors = self._consumer.successor(), {}
            return [(consumer.id, ()) for consumer in retired]
        retired = [self.consumer_for(service) for service in services]
        self._successors |= {service: self._consumer.successor() for service in services}
        return [(consumer.id, [service]) for consumer, service in zip(retired, services, strict=True)]


def default_consumer_name() -> str:
    """Returns the program, its process id and its host: `checkout.py[4711]@web1`."""
    return f"{_program()}[{os.getpid()}]@{platform.node()}"


def one_line(text: str) -> str:
    """Returns the text without line ends and unprintable characters, cut to `MAX_NAME_LENGTH`."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MAX_NAME_LENGTH]


def _program() -> str:
    path = Path(sys.argv[0] if sys.argv else "")
    if path.name == "__main__.py":  # python -m package
        return path.parent.name
    return path.name if path.name not in ("", "-c", "-m") else "python"
