"""Renews the certificate of this host from half of its life on, in the background, proved by the token of this host.

The key stays the same, so that one file is replaced and the certificate and the key always belong together. The token
is the one in the folder, also in a program that sends another one: the certificate names the owner of its token.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Final

from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials, read_bounded
from adsum.client.native.access_api import AccessApi
from adsum.client.native.request_sender import RequestSender
from adsum.core.backoff import jittered
from adsum.core.errors import AdsumError, Invalid
from adsum.outage_log import OutageLog
from adsum.ports import Clock

FIRST_LOOK_DELAY: Final = 60.0
"""Seconds until a program looks at the certificate for the first time. Short commands end before and do nothing."""
LOOK_INTERVAL: Final = 3_600.0
"""Seconds between two looks at the certificate, and between two attempts to renew it."""
LOOK_JITTER: Final = 0.5
"""The share by which these times vary, so that the programs of a host do not all renew at once."""

_log = logging.getLogger(__name__)


class ClientCertificateRenewal:
    """Keeps the certificate in a credentials folder valid while a program runs."""

    def __init__(self, folder: Path, clock: Clock, rng: Random) -> None:
        self._folder = folder
        self._clock = clock
        self._rng = rng
        self._outage = OutageLog(
            _log,
            "%s: the certificate is not renewed yet, trying again: %s",
            "%s: the certificate can be renewed again",
            failure_level=logging.WARNING,
            recovery_level=logging.INFO,
        )
        self._task = asyncio.create_task(self._run(), name="adsum-renew-certificate")

    async def close(self) -> None:
        """Stops renewing. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        delay = FIRST_LOOK_DELAY
        while True:
            await self._clock.sleep(jittered(delay, self._rng, LOOK_JITTER))
            delay = LOOK_INTERVAL
            try:
                if await renew_if_due(self._folder, self._clock.wall(), self._rng):
                    _log.info("%s: the certificate of this host is renewed", self._folder)
                self._outage.recovered(self._folder)
            except ImportError as error:
                _log.warning(
                    "%s: the certificate is not renewed by this program: %s is missing", self._folder, error.name
                )
                return
            except (AdsumError, OSError) as error:
                self._outage.failed(self._folder, error)
            except Exception:
                # If the task ended here, the certificate would expire unnoticed.
                _log.exception("%s: the certificate is not renewed, trying again", self._folder)


async def renew_if_due(path: Path, now: float, rng: Random) -> bool:
    """Renews the certificate in a credentials folder if half of its life is over. Returns whether it was renewed.

    `now` is on the wall clock. Raises what `renew_certificate` raises.
    """
    credentials = await asyncio.to_thread(CredentialsFolder(path).read)
    if not credentials.token or not await asyncio.to_thread(is_renewal_due, credentials, now):
        return False
    await renew_certificate(credentials, rng)
    return True


def is_renewal_due(credentials: RegistryCredentials, now: float) -> bool:
    """Returns whether half of the life of the certificate in the folder is over. `now` is on the wall clock.

    Another program may have renewed it, so the file is read. Raises `OSError` and `Invalid`.
    """
    from adsum.certificates.certificate import parse_certificates
    from adsum.certificates.expiry import RENEW_AT, certificate_life

    leaf = parse_certificates("certificate", read_bounded(_required(credentials.certificate)))[0]
    return now >= certificate_life(leaf, "client").due(RENEW_AT)


async def renew_certificate(credentials: RegistryCredentials, rng: Random) -> None:
    """Replaces the certificate in the folder by a new one of the same key.

    Raises `OSError`, `Invalid`, `RegistryUnavailable`, and the error that the registry answers.
    """
    request = await asyncio.to_thread(_renewal_request, credentials)
    sender = RequestSender(credentials.urls, rng=rng, credentials=ClientCredentials(credentials))
    try:
        result = await AccessApi(sender).renew_certificate(request)
    finally:
        await sender.close()
    await asyncio.to_thread(_keep_certificate, credentials, result.certificate)


def _renewal_request(credentials: RegistryCredentials) -> str:
    """Returns a request, as PEM, for the key and the names of the present certificate."""
    from adsum.certificates.pairs import make_pair
    from adsum.certificates.requests import create_request, decode_key
    from adsum.certificates.server_names import ServerNames

    key = read_bounded(_required(credentials.key))
    pair = make_pair(read_bounded(_required(credentials.certificate)), key, "certificate", "key")
    names = ServerNames.of_certificate(pair.leaf)
    return create_request(decode_key("key", key), credentials.name, names.dns_names, names.addresses).decode()


def _keep_certificate(credentials: RegistryCredentials, certificate: str) -> None:
    """Writes the new certificate. Raises `Invalid` unless it is for the key that the folder has now."""
    from adsum.certificates.pairs import make_pair

    # The host may have joined again meanwhile, with another key.
    make_pair(certificate.encode(), read_bounded(_required(credentials.key)), "certificate", "key")
    CredentialsFolder(_required(credentials.folder)).replace_certificate(certificate)


def _required(path: Path | None) -> Path:
    if path is None:
        raise Invalid("credentials", "have no certificate: join the registry with `adsum join`")
    return path
