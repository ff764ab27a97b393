"""Who routes: the identity under which a registry knows a program over all its connections and nodes."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from pathlib import Path
from typing import Final

NAME_MAX: Final = 128
"""Characters of a consumer's name; a longer name is cut off."""


class Consumer:
    """A program that routes. Its id stays the same for its life; a forked child gets an id of its own."""

    def __init__(self, name: str = "") -> None:
        """`name` is for people, who read it when a drain waits for this program; by default `default_name()`."""
        self._name = name
        self._id = secrets.token_hex(16)
        self._pid = os.getpid()

    @property
    def id(self) -> str:
        """32 hex digits."""
        if self._pid != os.getpid():
            self._id, self._pid = secrets.token_hex(16), os.getpid()
        return self._id

    @property
    def name(self) -> str:
        """One line of at most `NAME_MAX` characters."""
        return one_line(self._name or default_name())


def default_name() -> str:
    """The program, its process and its host: `checkout.py[4711]@web1`."""
    return f"{_program()}[{os.getpid()}]@{platform.node()}"


def one_line(text: str) -> str:
    """The text without characters that end a line or can't be printed, cut off at `NAME_MAX`."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:NAME_MAX]


def _program() -> str:
    path = Path(sys.argv[0] if sys.argv else "")
    if path.name == "__main__.py":  # python -m package
        return path.parent.name
    return path.name if path.name not in ("", "-c", "-m") else "python"
