"""The settings of access control: which scopes certificates and JWTs of other authorities give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from adsum.core.access.identity_rules import (
    CERTIFICATE_RULE,
    CLAIM_RULE,
    CertificateRule,
    ClaimRule,
    parse_certificate_rules,
    parse_claim_rules,
)
from adsum.core.errors import Invalid
from adsum.core.validation import quoted, without_credentials
from adsum.settings import setting

MAX_SETTING_LENGTH: Final = 2_048
"""Characters of an issuer, an audience or the place of keys. A longer one is refused."""


@dataclass(frozen=True)
class AccessSettings:
    """Settings of `adsum serve` for callers that certificates or JWTs identify."""

    certificate_scopes: tuple[str, ...] = setting(
        f"Scopes of client certificates of the authorities in --tls-client-ca: {CERTIFICATE_RULE}. The identity is the "
        "SPIFFE id of the certificate, else CN= and its common name; * stands for any text. May be given several "
        "times; the scopes add up",
        metavar="IDENTITY=SCOPES",
        default=(),
        reloads=True,
    )
    jwt_issuer: str = setting(
        "Accept JWTs of this issuer (the claim `iss`), such as https://login.example.org/realms/main; needs "
        "--jwt-audience and --jwt-keys",
        metavar="ISSUER",
        default="",
        reloads=True,
    )
    jwt_audience: str = setting(
        "The audience (the claim `aud`) that JWTs must have, such as adsum",
        metavar="AUDIENCE",
        default="",
        reloads=True,
    )
    jwt_keys: str = setting(
        "The public keys of the issuer of JWTs, as a JWK set (JWKS): a file, or an https:// URL, which is read again "
        "every few minutes",
        metavar="FILE|URL",
        default="",
        reloads=True,
    )
    jwt_scopes: tuple[str, ...] = setting(
        f"Scopes of JWTs by their claims: {CLAIM_RULE}. The claim may be a list; of the claims `scope` and `scp` each "
        "word counts; * stands for any text. May be given several times; the scopes add up",
        metavar="CLAIM=VALUE=SCOPES",
        default=(),
        reloads=True,
    )

    @property
    def accepts_jwts(self) -> bool:
        """True if JWTs are accepted."""
        return bool(self.jwt_issuer)

    def certificate_rules(self) -> tuple[CertificateRule, ...]:
        """Returns the rules of `certificate_scopes`. Raises `Invalid`."""
        return parse_certificate_rules("certificate_scopes", self.certificate_scopes)

    def claim_rules(self) -> tuple[ClaimRule, ...]:
        """Returns the rules of `jwt_scopes`. Raises `Invalid`."""
        return parse_claim_rules("jwt_scopes", self.jwt_scopes)

    def check_access(self) -> None:
        """Raises `Invalid` if a value is wrong."""
        self.certificate_rules()
        self.claim_rules()
        texts = {"jwt_issuer": self.jwt_issuer, "jwt_audience": self.jwt_audience, "jwt_keys": self.jwt_keys}
        given = [name for name, value in texts.items() if value]
        for name, value in texts.items():
            if given and not value:
                raise Invalid(name, f"must be given, since {given[0]} is")
            if len(value) > MAX_SETTING_LENGTH or not value.isprintable():
                raise Invalid(name, f"must be at most {MAX_SETTING_LENGTH} printable characters")
        if self.jwt_scopes and not given:
            raise Invalid("jwt_issuer", "must be given, since jwt_scopes is")
        if is_url(self.jwt_keys):
            _check_keys_url("jwt_keys", self.jwt_keys)


def is_url(place: str) -> bool:
    """Returns whether the place of keys is a URL, and not a file."""
    return "://" in place


def _check_keys_url(field: str, value: str) -> None:
    try:
        parts = urlsplit(value)
        is_good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
        parts.port  # noqa: B018 - raises ValueError for a bad port
    except ValueError:
        is_good = False
    if not is_good:
        # Whoever can change the keys on their way can be anyone, so plain http is refused.
        raise Invalid(
            field,
            f"must be a file or an https:// URL without user and password, not {quoted(without_credentials(value))}",
        )
