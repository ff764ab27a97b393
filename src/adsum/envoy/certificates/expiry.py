"""Warns in the log before a gateway's certificate expires, and again once it has."""

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
"""Seconds before the expiry from which on the log warns."""
REPEAT_AFTER: Final = 86_400.0
"""Seconds after which the same warning is repeated."""
EXPIRY_POLL_INTERVAL: Final = 60.0
"""Seconds between two checks, with a jitter of 10 %."""

_log = logging.getLogger("adsum.envoy")


class CertificateExpiry:
    """Decides when to warn about a certificate. Pure; instants are Unix times."""

    def __init__(self) -> None:
        self._warned: tuple[float, str] | None = None
        """The latest warning: the certificate's expiry and the state that was reported."""
        self._warned_at = 0.0

    def warning(self, now: float, expires_at: float) -> str:
        """Returns the warning to log now, "" if none is due. `expires_at` is 0 without a certificate."""
        state = "has expired" if expires_at <= now else "expires"
        if not expires_at or expires_at - now > WARN_BEFORE:
            self._warned = None
            return ""
        if self._warned == (expires_at, state) and now - self._warned_at < REPEAT_AFTER:
            return ""
        self._warned, self._warned_at = (expires_at, state), now
        end = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        files = "write a new one to the files of --tls-cert and --tls-key; they are reread automatically"
        return f"the certificate {state} at {end}: {files}"


async def watch_expiry(serving_admin: Callable[[], AdminClient | None], rng: Random) -> None:
    """Logs warnings until cancelled. `serving_admin` returns the admin client of the Envoy to ask, if there is one."""
    expiry = CertificateExpiry()
    while True:
        admin = serving_admin()
        if admin is not None:
            with suppress(AdminUnavailable):
                warning = expiry.warning(time.time(), await admin.certificate_expiry())
                if warning:
                    _log.warning("%s", warning)
        await asyncio.sleep(jittered(EXPIRY_POLL_INTERVAL, rng))
