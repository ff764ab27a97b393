"""Is there another certificate where the one that is shown came from?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from adsum.envoy.certificates import certificate
from adsum.envoy.plan import Plan
from adsum.envoy.preflight import CannotServe

LOOK: Final = 2.0
"""Seconds between two looks, give or take a tenth; what is found twice in a row is taken for complete."""

_log = logging.getLogger("adsum.envoy")


class Renewal:
    """Looks at a plan's files, however they are replaced. `pair` is the last that was good."""

    def __init__(self, pair: bytes) -> None:
        self.pair = pair
        self._seen = self._judged = pair

    def look(self, plan: Plan, folder: Path) -> bool:
        """Whether there is another pair, which is proven; what is wrong with one is logged once. Waits for the disk."""
        found, problem = _found(plan)
        settled, self._seen = found == self._seen, found
        if not settled or found == self._judged:
            return False
        self._judged = found
        try:
            if problem is not None:
                raise problem
            certificate.prove(found, plan, folder)
        except CannotServe as error:
            _log.error("the certificate is not renewed, the one before is shown on: %s", error)
            return False
        before, self.pair = self.pair, found
        return found != before


def _found(plan: Plan) -> tuple[bytes, CannotServe | None]:
    try:
        return certificate.read(plan.shape), None
    except CannotServe as error:
        return b"", error
