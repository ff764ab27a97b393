"""Identifies callers of one node by client certificates and JWTs, as its settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adsum.access.authority import AuthorityService
from adsum.access.control import AccessControl
from adsum.access.settings import AccessSettings
from adsum.ports import Clock

if TYPE_CHECKING:
    from adsum.access.certificate_identity import CertificateIdentities
    from adsum.access.jwt import JwtIdentities


class CallerIdentities:
    """Gives the access control of a node its verifiers, and keeps them in step with the settings."""

    def __init__(
        self, access: AccessControl, clock: Clock, settings: AccessSettings, authority: AuthorityService | None
    ) -> None:
        """`authority` is None if the node serves no TLS; then there are no client certificates. Raises `Invalid`."""
        self._access = access
        self._clock = clock
        self._settings = settings
        self._authority = authority
        self._certificates: CertificateIdentities | None = None
        self._jwts: JwtIdentities | None = None
        if authority is not None:
            from adsum.access.certificate_identity import (
                CertificateIdentities,
            )  # Other nodes don't need `cryptography`.

            self._certificates = CertificateIdentities(
                clock,
                access.tokens.find,
                authority=_own_authority(authority),
                rules=settings.certificate_rules(),
            )
            access.certificates = self._certificates
        if settings.accepts_jwts:
            self._jwts = access.jwts = self._create_jwts(settings)

    async def start(self) -> None:
        """Reads the keys of the issuer of JWTs, now or in the background."""
        if self._jwts is not None:
            await self._jwts.start()

    async def stop(self) -> None:
        """Stops reading keys. Idempotent."""
        if self._jwts is not None:
            await self._jwts.stop()

    async def configure(self, settings: AccessSettings) -> None:
        """Takes over other settings. Streams of callers that no token proves end, so that they follow.

        Raises `Invalid`.
        """
        before, self._settings = self._settings, settings
        if _values(before) == _values(settings):
            return
        if self._certificates is not None:
            self._certificates.configure(rules=settings.certificate_rules())
        if self._jwts is not None and settings.accepts_jwts:
            self._jwts.configure(settings)
        elif self._jwts is not None:
            await self._jwts.stop()
            self._jwts = self._access.jwts = None
        elif settings.accepts_jwts:
            self._jwts = self._access.jwts = self._create_jwts(settings)
            await self._jwts.start()
        self._access.identities_changed()

    def authority_changed(self) -> None:
        """Takes over another certificate of the authority. Streams go on: its key is the same."""
        if self._certificates is not None and self._authority is not None:
            self._certificates.configure(authority=_own_authority(self._authority))

    def _create_jwts(self, settings: AccessSettings) -> JwtIdentities:
        from adsum.access.jwt import JwtIdentities

        return JwtIdentities(settings, self._clock, self._access.identities_changed)


def _own_authority(authority: AuthorityService) -> bytes:
    """Returns the registry's own authority; empty if the operator's certificates are used.

    An authority of the operator must not sign certificates that stand for tokens.
    """
    return b"" if authority.is_external else authority.certificate_pem()


def _values(settings: AccessSettings) -> tuple[object, ...]:
    return (
        settings.certificate_scopes,
        settings.jwt_issuer,
        settings.jwt_audience,
        settings.jwt_keys,
        settings.jwt_scopes,
    )
