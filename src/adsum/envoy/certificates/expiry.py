"""Warns in the log before a certificate of a gateway expires, and again once it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from adsum.certificates.expiry import CertificateLife, ExpiryWarnings
from adsum.core.backoff import jittered

EXPIRY_POLL_INTERVAL: Final = 60.0
"""Seconds between two checks, with a jitter of 10 %."""

_log = logging.getLogger("adsum.envoy")


async def watch_expiry(lives: Callable[[], Iterable[CertificateLife]], rng: Random) -> None:
    """Logs warnings until cancelled. `lives` returns the lives of the certificates that are in use."""
    warnings = ExpiryWarnings()
    while True:
        for warning in warnings.due(lives(), time.time()):
            _log.warning("%s", warning)
        await asyncio.sleep(jittered(EXPIRY_POLL_INTERVAL, rng))
