"""Warnings before certificates expire. Pure; instants are seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from cryptography import x509

DAY: Final = 86_400.0
WARNING_DAYS: Final = (30, 7, 1)
"""Days before the expiry of a certificate that nobody renews, at which a warning is due."""
RENEW_AT: Final = 0.5
"""Share of its life after which a certificate is renewed by its holder."""
OVERDUE_AT: Final = 0.75
"""Share of its life after which a renewal is overdue, so that a warning is due."""
EXPIRED: Final = -1
"""The stage of a certificate that has expired; the other stages are days, or `OVERDUE`."""
OVERDUE: Final = 0
"""The stage of a certificate whose renewal is overdue."""


class CertificateLife(NamedTuple):
    """The life of a certificate in use.

    `name` is a word for people and metrics. `remedy` says as a clause what mends its expiry. `is_renewed`: its holder
    renews it without an operator.
    """

    name: str
    begins: float
    expires: float
    remedy: str = ""
    is_renewed: bool = False

    def due(self, share: float) -> float:
        """Returns the instant at which this share of the life is over."""
        return self.begins + share * (self.expires - self.begins)


def certificate_life(
    certificate: x509.Certificate, name: str, remedy: str = "", *, is_renewed: bool = False
) -> CertificateLife:
    """Returns the life of a certificate."""
    begins, expires = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return CertificateLife(name, begins, expires, remedy, is_renewed)


class ExpiryWarnings:
    """Decides which warnings are due. A warning is due once for each stage of a certificate."""

    def __init__(self) -> None:
        self._warned: dict[str, tuple[float, int]] = {}
        """Name → the expiry of the certificate, and its latest stage."""

    def due(self, lives: Iterable[CertificateLife], now: float) -> list[str]:
        """Returns the warnings that are due now. A renewed certificate begins anew."""
        known, warnings = self._warned, []
        self._warned = {}
        for life in lives:
            stage = expiry_stage(life, now)
            if stage is None:
                continue
            self._warned[life.name] = life.expires, stage
            if known.get(life.name) != (life.expires, stage):
                warnings.append(_warning(life, stage, now))
        return warnings


def expiry_stage(life: CertificateLife, now: float) -> int | None:
    """Returns the stage of a certificate: the days of the latest warning, `OVERDUE` or `EXPIRED`; None before that."""
    if life.expires <= now:
        return EXPIRED
    if life.is_renewed:
        return OVERDUE if now >= life.due(OVERDUE_AT) else None
    return min((days for days in WARNING_DAYS if life.expires - now <= days * DAY), default=None)


def format_expiry(at: float) -> str:
    """Returns the instant as people and logs read it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _warning(life: CertificateLife, stage: int, now: float) -> str:
    remedy = f": {life.remedy}" if life.remedy else ""
    if stage == EXPIRED:
        return f"the certificate {life.name} expired at {format_expiry(life.expires)}{remedy}"
    left = life.expires - now
    length = f"{left / DAY:.0f} days" if left >= 2 * DAY else f"{left / 3_600.0:.0f} hours"
    overdue = ", and its renewal is overdue" if stage == OVERDUE else ""
    return f"the certificate {life.name} expires in {length}, at {format_expiry(life.expires)}{overdue}{remedy}"
