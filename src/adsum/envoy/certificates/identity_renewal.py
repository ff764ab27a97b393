"""Renews a gateway's certificate for its registry, from half of its life on, proved by the token of its host.

The new certificate is written to the credentials folder. From there it reaches Envoy like one that someone else has
written (`renewal`). An expired certificate is renewed in the same way, because the token proves the gateway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

from adsum.cache_files import replace_private_file
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.credentials.folder import CERTIFICATE_FILE, KEY_FILE, CredentialsFolder
from adsum.client.native.access_api import AccessApi
from adsum.client.native.certificate_renewal import renew_if_due
from adsum.client.native.request_sender import RequestSender
from adsum.core.backoff import Backoff, jittered
from adsum.core.errors import AdsumError
from adsum.outage_log import OutageLog

LOOK_INTERVAL: Final = 30.0
"""Seconds between two looks at the certificate, with a jitter of 10 %."""
FIRST_RETRY_DELAY, MAX_RETRY_DELAY = 15.0, 60.0
"""Seconds between two attempts to renew a certificate, so that the gateways of a registry whose certificates have all
expired do not come back at once, and come back soon."""
FIRST_OBTAIN_DELAY: Final = 1.0
"""Seconds after which the first certificate is requested again; the delay grows to `FIRST_RETRY_DELAY`."""

_log = logging.getLogger("adsum.envoy")


async def keep_identity_valid(
    folder: Callable[[], Path | None], rng: Random, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Renews the certificate in a credentials folder until cancelled. `folder` returns None if there is none."""
    outage = OutageLog(
        _log,
        "the certificate for the registry is not renewed, trying again: %s",
        "the certificate for the registry can be renewed again",
    )
    backoff = Backoff(FIRST_RETRY_DELAY, MAX_RETRY_DELAY)
    while True:
        path = folder()
        delay = jittered(LOOK_INTERVAL, rng)
        if path is not None:
            try:
                await renew_if_due(path, time.time(), rng)
            except (AdsumError, OSError) as error:
                outage.failed(error)
                delay = backoff.next(rng)
            else:
                outage.recovered()
                backoff.reset()
        await sleep(delay)


async def obtain_certificate(path: Path, rng: Random) -> None:
    """Gets the first certificate for a credentials folder that has a token and no certificate.

    Returns at once if there is one. Otherwise it tries until a node signs one; the first problem is logged.
    """
    outage = OutageLog(
        _log,
        "the registry has not signed a certificate for this gateway yet, trying again: %s",
        "the registry has signed a certificate for this gateway",
    )
    backoff = Backoff(FIRST_OBTAIN_DELAY, FIRST_RETRY_DELAY)
    while not (path / CERTIFICATE_FILE).exists():
        try:
            await _obtain(path, rng)
        except (AdsumError, OSError) as error:
            outage.failed(error)
            await asyncio.sleep(backoff.next(rng))
    outage.recovered()


async def _obtain(path: Path, rng: Random) -> None:
    folder = CredentialsFolder(path)
    credentials = await asyncio.to_thread(folder.read)
    key = new_key()
    sender = RequestSender(credentials.urls, rng=rng, credentials=ClientCredentials(credentials))
    try:
        result = await AccessApi(sender).renew_certificate(create_request(key, credentials.name).decode())
    finally:
        await sender.close()
    replace_private_file(path / KEY_FILE, encode_key(key))
    folder.replace_certificate(result.certificate)
