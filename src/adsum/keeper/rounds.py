"""Loops that never die: work done in rounds, for ever, whatever one of them runs into."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, NoReturn

from adsum.core.backoff import Backoff
from adsum.ports import Clock

INITIAL_ERROR_DELAY: Final = 1.0
MAX_ERROR_DELAY: Final = 30.0
"""How long a loop rests after an unexpected error, in seconds, at first and at most."""

_log = logging.getLogger("adsum.keeper")


async def run_rounds(round: Callable[[], Awaitable[None]], name: str, clock: Clock, rng: Random) -> NoReturn:
    """Do one `round` after the other, each waiting for its own time. A failed one is logged, and the loop goes on."""
    backoff = Backoff(INITIAL_ERROR_DELAY, MAX_ERROR_DELAY)
    while True:
        try:
            await round()
            backoff.reset()
        except Exception:
            pause = backoff.next(rng)
            _log.exception("a round of %s failed; the next is in %.1f s", name, pause)
            await clock.sleep(pause)
