"""Detects a new certificate in the operator's files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from adsum.envoy.certificates import certificate
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe

CERTIFICATE_POLL_INTERVAL: Final = 2.0
"""Seconds between two polls of the files, with a jitter of 10 %. A pair that is found twice in a row counts as
complete."""

_log = logging.getLogger("adsum.envoy")


class CertificateRenewal:
    """Polls the certificate files of a plan, however they are replaced. `pair` is the latest valid pair."""

    def __init__(self, pair: bytes) -> None:
        self.pair = pair
        self._last_read = self._last_checked = pair

    def poll(self, plan: GatewayPlan, folder: Path) -> bool:
        """Returns whether there is a new valid pair. A problem with a pair is logged once. Blocks on the disk."""
        pair, problem = _read(plan)
        unchanged, self._last_read = pair == self._last_read, pair
        if not unchanged or pair == self._last_checked:
            return False
        self._last_checked = pair
        try:
            if problem is not None:
                raise problem
            certificate.validate_pair(pair, plan, folder)
        except CannotServe as error:
            _log.error("the certificate is not renewed, the current one stays in use: %s", error)
            return False
        previous, self.pair = self.pair, pair
        return pair != previous


def _read(plan: GatewayPlan) -> tuple[bytes, CannotServe | None]:
    try:
        return certificate.read_pair(plan.profile), None
    except CannotServe as error:
        return b"", error
