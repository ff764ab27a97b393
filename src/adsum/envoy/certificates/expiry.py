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
from adsum.envoy.admin import AdminClient, AdminUnavailable

WARN_BEFORE: Final = 14 * 86_400.0
"""Seconds before a certificate expires from which on that is said."""
REPEAT_AFTER: Final = 86_400.0
"""Seconds after which the same is said again."""
EXPIRY_POLL_INTERVAL: Final = 60.0
"""Seconds between two looks, give or take a tenth."""

_log = logging.getLogger("adsum.envoy")


class CertificateExpiry:
    """What is to be said of one certificate after another. Pure; instants are those of the wall clock."""

    def __init__(self) -> None:
        self._said: tuple[float, str] | None = None
        """Of which certificate something was said last, by its end, and what."""
        self._said_at = 0.0

    def warning(self, now: float, expires_at: float) -> str:
        """What to say of the certificate that is shown, "" if nothing. `expires_at` 0: none is shown."""
        state = "has expired" if expires_at <= now else "expires"
        if not expires_at or expires_at - now > WARN_BEFORE:
            self._said = None
            return ""
        if self._said == (expires_at, state) and now - self._said_at < REPEAT_AFTER:
            return ""
        self._said, self._said_at = (expires_at, state), now
        end = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"the certificate {state} at {end}: write another one to --tls-cert and --tls-key, which are read again"


async def watch_expiry(serving_admin: Callable[[], AdminClient | None], rng: Random) -> None:
    """Say it in the log. `serving_admin`: whom to ask, if anybody."""
    expiry = CertificateExpiry()
    while True:
        admin = serving_admin()
        if admin is not None:
            with suppress(AdminUnavailable):
                words = expiry.warning(time.time(), await admin.certificate_expiry())
                if words:
                    _log.warning("%s", words)
        await asyncio.sleep(jittered(EXPIRY_POLL_INTERVAL, rng))
