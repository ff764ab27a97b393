"""Explains why a TLS connection to a registry node failed: one sentence, and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

MAX_CAUSES: Final = 16
"""Errors behind an error that are searched for the one of TLS. Those further behind are not."""

_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED, _UNKNOWN_ISSUERS = 18, (19, 20, 21)
_NAME_MISMATCHES: Final = (62, 64)
"""Results of OpenSSL's verification (X509_V_ERR_…)."""

_ALERTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CERTIFICATE_EXPIRED": "it refuses the certificate of this host, which has expired: `adsum join --renew`",
        "CERTIFICATE_REVOKED": "it refuses the certificate of this host, which was revoked: join the registry again",
        "CERTIFICATE_REQUIRED": "it requires a certificate of this host: join the registry with `adsum join`",
        "UNKNOWN_CA": "it refuses the certificate of this host, which another authority signed: join again",
        "BAD_CERTIFICATE": "it refuses the certificate of this host: join the registry again",
    }
)
"""Part of the name of an alert of the other side → what it means."""


def find_tls_error(error: BaseException) -> ssl.SSLError | None:
    """Returns the error of TLS that is the cause of an error; None if there is none."""
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None or isinstance(cause, ssl.SSLError):
            break
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, ssl.SSLError) else None


def is_untrusted(error: ssl.SSLError) -> bool:
    """Returns whether the certificate of the node can't be verified."""
    return isinstance(error, ssl.SSLCertVerificationError)


def tls_problem(error: ssl.SSLError, *, is_registry: bool = True) -> str:
    """Returns the problem as a clause about the other side; about a node of a registry it says what to do."""
    if not is_registry:
        return f"the TLS connection failed: {error.strerror or error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted_problem(error.verify_code, error.verify_message)
    text = getattr(error, "reason", "") or str(error)
    reason = text.upper().replace(" ", "_")
    if any(name in reason for name in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")):
        return "it does not speak TLS at this port: use http:// in its URL, or the port at which it serves https"
    for name, problem in _ALERTS.items():
        if name in reason:
            return problem
    return f"the TLS connection failed: {text.lower().replace('_', ' ')}"


def _untrusted_problem(code: int, message: str) -> str:
    if code == _EXPIRED:
        return (
            "its certificate, or that of its authority, has expired (`adsum init --renew` on the registry's first node "
            "renews them)"
        )
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet: compare the clocks of both hosts"
    if code in _NAME_MISMATCHES:
        return (
            f"its certificate is for other names ({message}): use an address that the certificate has, or add this one "
            "by `adsum serve --tls-name`"
        )
    if code == _SELF_SIGNED or code in _UNKNOWN_ISSUERS:
        return (
            "its certificate comes from an authority that this host does not trust: join the registry with "
            "`adsum join`, or name the certificate of its authority by --authority-file"
        )
    return f"its certificate can't be verified: {message}"
