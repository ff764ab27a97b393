"""Renews the certificate of this host from half of its life on, in the background, proved by the token of this host.

The key stays the same, so that one file is replaced and the certificate and the key always belong together.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Final

from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials, read_bounded
from adsum.client.native.access_api import AccessApi
from adsum.client.native.request_sender import RequestSender
from adsum.core.backoff import jittered
from adsum.core.errors import AdsumError, Invalid
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

    def __init__(self, credentials: RegistryCredentials, sender: RequestSender, clock: Clock, rng: Random) -> None:
        self._credentials = credentials
        self._sender = sender
        self._clock = clock
        self._rng = rng
        self._problem = ""
        """The latest problem, which is logged once; "" if there is none."""
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
                if is_renewal_due(self._credentials, self._clock.wall()):
                    await renew_certificate(self._credentials, self._sender)
                    _log.info("%s: the certificate of this host is renewed", self._credentials.certificate)
                self._problem = ""
            except ImportError as error:
                _log.warning(
                    "%s: not renewed by this program: %s is missing", self._credentials.certificate, error.name
                )
                return
            except (AdsumError, OSError) as error:
                self._note(str(error))
            except Exception:
                # If the task ended here, the certificate would expire unnoticed.
                _log.exception("%s: not renewed, trying again", self._credentials.certificate)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("%s: not renewed yet, trying again: %s", self._credentials.certificate, problem)
        self._problem = problem


def is_renewal_due(credentials: RegistryCredentials, now: float) -> bool:
    """Returns whether half of the life of the certificate in the folder is over. `now` is on the wall clock.

    Another program may have renewed it, so the file is read. Raises `OSError` and `Invalid`.
    """
    from adsum.certificates.expiry import RENEW_AT, CertificateLife
    from adsum.certificates.hashes import parse_certificates

    leaf = parse_certificates("certificate", read_bounded(_required(credentials.certificate)))[0]
    return now >= CertificateLife.of(leaf).due(RENEW_AT)


async def renew_certificate(credentials: RegistryCredentials, sender: RequestSender) -> None:
    """Replaces the certificate in the folder by a new one of the same key.

    Raises `OSError`, `Invalid`, `RegistryUnavailable`, and the error that the registry answers.
    """
    from adsum.certificates.pairs import make_pair
    from adsum.certificates.requests import create_request, decode_key
    from adsum.certificates.server_names import ServerNames

    folder = CredentialsFolder(_required(credentials.folder))
    key = read_bounded(_required(credentials.key))
    before = make_pair(read_bounded(_required(credentials.certificate)), key, "certificate", "key")
    names = ServerNames.of_certificate(before.leaf)
    request = create_request(decode_key("key", key), credentials.name, names.dns_names, names.addresses)
    result = await AccessApi(sender).renew_certificate(request.decode())
    make_pair(result.certificate.encode(), key, "certificate", "key")  # Raises unless it is for this key.
    folder.replace_certificate(result.certificate)


def _required(path: Path | None) -> Path:
    if path is None:
        raise Invalid("credentials", "have no certificate: join the registry with `adsum join`")
    return path
