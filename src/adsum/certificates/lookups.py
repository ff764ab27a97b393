"""Look-ups by the system's resolver, with a bound on the time that they take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

LOOKUP_TIMEOUT: Final = 2.0
"""Seconds that a look-up may take. A name server that does not answer would delay the start of a node by much more."""

T = TypeVar("T")


def look_up(work: Callable[[], T], default: T, timeout: float = LOOKUP_TIMEOUT) -> T:
    """Returns the result of `work`, which blocks; `default` if it fails, or takes longer than `timeout`.

    One that takes longer goes on in a thread that does not keep the program from ending.
    """
    results: list[T] = []

    def run() -> None:
        try:
            results.append(work())
        except (OSError, UnicodeError):  # A name that DNS can't have is a UnicodeError.
            results.append(default)

    thread = threading.Thread(target=run, name="adsum-look-up", daemon=True)
    thread.start()
    thread.join(timeout)
    return results[0] if results else default
