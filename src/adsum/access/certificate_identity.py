"""Identifies callers by their client certificates.

The transport has verified that an authority which it trusts signed the certificate. Here it is found out who that is:
a certificate of the registry's own authority stands for a token; the identity in any other certificate gets its scopes
from the setting `certificate_scopes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from adsum.certificates.authority import is_signed_by, token_id_of
from adsum.certificates.certificate import parse_certificates
from adsum.core.access.identity_rules import (
    COMMON_NAME_PREFIX,
    SPIFFE_SCHEME,
    CertificateRule,
    certificate_scopes,
    is_own_spiffe_id,
    principal_name,
)
from adsum.core.access.principal import Principal
from adsum.core.access.tokens import Token, earlier
from adsum.core.errors import Invalid, Unauthenticated
from adsum.ports import Clock

MAX_CACHED_CERTIFICATES: Final = 4_096
"""Certificates whose identity is cached. Past it the one that was read first is read again when it is used."""
MAX_CERTIFICATE_BYTES: Final = 32 * 1024
"""Bytes of a certificate (DER). A larger one is refused."""
CLOCK_LEEWAY: Final = 60.0
"""Seconds by which the clock of an authority may be ahead of this node's."""


@dataclass(slots=True)
class _Certificate:
    """What a certificate says: the id of a token, or a principal; and when it is valid, on the wall clock."""

    token_id: str
    principal: Principal | None
    not_before: float
    not_after: float
    token: Token | None = None
    """The token that `principal` was made from."""


class CertificateIdentities:
    """Implements `adsum.access.control.CertificateVerifier`."""

    def __init__(
        self,
        clock: Clock,
        find_token: Callable[[str], Token | None],
        *,
        authority: bytes = b"",
        rules: Sequence[CertificateRule] = (),
    ) -> None:
        """`find_token` returns the token with an id, as it is now. `authority` and `rules` are as in `configure`."""
        self._clock = clock
        self._find_token = find_token
        self._cache: dict[bytes, _Certificate] = {}
        self._authorities: list[x509.Certificate] = []
        self._rules: tuple[CertificateRule, ...] = ()
        self.configure(authority=authority, rules=rules)

    def configure(self, *, authority: bytes | None = None, rules: Sequence[CertificateRule] | None = None) -> None:
        """Changes what is given. Call `AccessControl.identities_changed` afterwards, so that streams follow.

        `authority`: the certificate of the registry's own authority (PEM), or several of them; empty if it has none.
        Raises `Invalid` if it can't be read. `rules` give scopes to certificates of other authorities.
        """
        if authority is not None:
            self._authorities = parse_certificates("authority", authority) if authority else []
        if rules is not None:
            self._rules = tuple(rules)
        self._cache = {}

    def identify(self, certificate: bytes) -> Principal:
        """Returns the principal that a certificate (DER) proves. Raises `Unauthenticated`.

        Its scopes are empty if no rule concerns it.
        """
        # The bytes are the key, not a hash of them: Python keeps their hash, and a connection sends the same object.
        known = self._cache.get(certificate)
        if known is None:
            known = self._read(certificate)
            if len(self._cache) >= MAX_CACHED_CERTIFICATES:
                del self._cache[next(iter(self._cache))]
            self._cache[certificate] = known
        now = self._clock.wall()
        if not known.not_before - CLOCK_LEEWAY <= now < known.not_after:
            when = "has expired" if now >= known.not_after else "is not valid yet"
            raise Unauthenticated(f"the client certificate {when}: get a new one", reason="expired")
        if known.token_id:
            return self._of_token(known, now)
        if known.principal is None:
            raise Unauthenticated("the client certificate names nobody", reason="wrong-credentials")
        return known.principal

    def _of_token(self, known: _Certificate, now: float) -> Principal:
        token = self._find_token(known.token_id)
        if token is None:
            raise Unauthenticated(
                "the token of the client certificate was revoked: join the registry again", reason="wrong-credentials"
            )
        if token.expires is not None and token.expires <= now:
            raise Unauthenticated(f"the token {token.name} of the client certificate has expired", reason="expired")
        if known.principal is None or token is not known.token:
            expires = earlier(token.expires, known.not_after)
            known.token, known.principal = token, replace(token.principal(), expires=expires, method="certificate")
        return known.principal

    def _read(self, der: bytes) -> _Certificate:
        try:
            if len(der) > MAX_CERTIFICATE_BYTES:
                raise ValueError("it is too large")
            certificate = x509.load_der_x509_certificate(der)
            uris, common_names = _names(certificate)
            not_before = certificate.not_valid_before_utc.timestamp()
            not_after = certificate.not_valid_after_utc.timestamp()
        except Exception as error:
            # The library raises many errors for bytes that are no certificate.
            raise Unauthenticated("the client certificate can't be read", reason="malformed") from error
        if any(is_signed_by(certificate, authority) for authority in self._authorities):
            token_id = token_id_of(certificate)
            if not token_id:
                raise Unauthenticated(
                    "the client certificate names no token, though this registry signed it: join the registry again",
                    reason="wrong-credentials",
                )
            return _Certificate(token_id, None, not_before, not_after)
        identity = _identity(uris, common_names)
        try:
            name = principal_name(identity)
        except Invalid as error:
            raise Unauthenticated(
                f"the identity in the client certificate {error.problem}", reason="malformed"
            ) from error
        scopes = certificate_scopes(self._rules, identity)
        return _Certificate("", Principal(name, scopes, expires=not_after, method="certificate"), not_before, not_after)


def _names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """Returns the URIs among the alternative names, and the common names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    common_names = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return uris, [name if isinstance(name, str) else "" for name in common_names]


def _identity(uris: Sequence[str], common_names: Sequence[str]) -> str:
    """Returns the identity in a certificate of another authority. Raises `Unauthenticated`."""
    if any(is_own_spiffe_id(uri) for uri in uris):
        raise Unauthenticated(
            "only the authority of this registry may sign certificates with spiffe://adsum", reason="wrong-credentials"
        )
    if any(uri.lower().startswith(SPIFFE_SCHEME) for uri in uris):
        if len(uris) > 1:
            # So says the standard (SPIFFE X509-SVID, 2): which of them is the identity would be a guess.
            raise Unauthenticated(
                "the client certificate has several URIs, so its SPIFFE id is not clear", reason="malformed"
            )
        return uris[0]
    if len(common_names) != 1 or not common_names[0]:
        raise Unauthenticated("the client certificate has no SPIFFE id and no common name", reason="wrong-credentials")
    return COMMON_NAME_PREFIX + common_names[0]
