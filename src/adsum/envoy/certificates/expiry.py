"""When the certificate that a gateway shows expires: said before, and again and again once it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Final

from adsum.core.backoff import jittered
from adsum.envoy.admin import Admin, NoAnswer

SOON: Final = 14 * 86_400.0
"""Seconds before a certificate expires from which on that is said."""
SAY_AGAIN: Final = 86_400.0
"""Seconds after which the same is said again."""
LOOK: Final = 60.0
"""Seconds between two looks, give or take a tenth."""

_log = logging.getLogger("adsum.envoy")


class Expiry:
    """What is to be said of one certificate after another. Pure; instants are those of the wall clock."""

    def __init__(self) -> None:
        self._said: tuple[float, str] | None = None
        """Of which certificate something was said last, by its end, and what."""
        self._said_at = 0.0

    def look(self, now: float, expires_at: float) -> str:
        """What to say of the certificate that is shown, "" if nothing. `expires_at` 0: none is shown."""
        state = "has expired" if expires_at <= now else "expires"
        if not expires_at or expires_at - now > SOON:
            self._said = None
            return ""
        if self._said == (expires_at, state) and now - self._said_at < SAY_AGAIN:
            return ""
        self._said, self._said_at = (expires_at, state), now
        end = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"the certificate {state} at {end}: write another one to --tls-cert and --tls-key, which are read again"


async def watch(serving: Callable[[], Admin | None], rng: Random) -> None:
    """Say it in the log. `serving`: whom to ask, if anybody."""
    expiry = Expiry()
    while True:
        admin = serving()
        if admin is not None:
            with suppress(NoAnswer):
                words = expiry.look(time.time(), await admin.certificate_expires())
                if words:
                    _log.warning("%s", words)
        await asyncio.sleep(jittered(LOOK, rng))
