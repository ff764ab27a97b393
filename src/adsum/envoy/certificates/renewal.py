"""Is there another certificate where the one that is shown came from?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from adsum.envoy.certificates import certificate
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe

CERTIFICATE_POLL_INTERVAL: Final = 2.0
"""Seconds between two looks, give or take a tenth; what is found twice in a row is taken for complete."""

_log = logging.getLogger("adsum.envoy")


class CertificateRenewal:
    """Looks at a plan's files, however they are replaced. `pair` is the last that was good."""

    def __init__(self, pair: bytes) -> None:
        self.pair = pair
        self._seen = self._judged = pair

    def poll(self, plan: GatewayPlan, folder: Path) -> bool:
        """Whether there is another pair, which is proven; what is wrong with one is logged once. Waits for the disk."""
        found, problem = _found(plan)
        settled, self._seen = found == self._seen, found
        if not settled or found == self._judged:
            return False
        self._judged = found
        try:
            if problem is not None:
                raise problem
            certificate.validate_pair(found, plan, folder)
        except CannotServe as error:
            _log.error("the certificate is not renewed, the one before is shown on: %s", error)
            return False
        before, self.pair = self.pair, found
        return found != before


def _found(plan: GatewayPlan) -> tuple[bytes, CannotServe | None]:
    try:
        return certificate.read_pair(plan.profile), None
    except CannotServe as error:
        return b"", error
