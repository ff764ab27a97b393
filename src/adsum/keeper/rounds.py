"""Loops of rounds that go on after errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NoReturn

from adsum.core.backoff import Backoff
from adsum.ports import Clock

INITIAL_ERROR_DELAY: Final = 1.0
MAX_ERROR_DELAY: Final = 30.0
"""Seconds until the next round after an unexpected error, at first and at most."""

_log = logging.getLogger("adsum.keeper")


async def run_rounds(round: Callable[[], Awaitable[None]], name: str, clock: Clock, rng: Random) -> NoReturn:
    """Runs `round` for ever; each round waits for its own time. A failed round is logged, and the loop goes on."""
    backoff = Backoff(INITIAL_ERROR_DELAY, MAX_ERROR_DELAY)
    while True:
        try:
            await round()
            backoff.reset()
        except Exception:
            delay = backoff.next(rng)
            _log.exception("a round of %s failed; the next is in %.1f s", name, delay)
            await clock.sleep(delay)
