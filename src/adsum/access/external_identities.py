"""The identities that other authorities prove, as the settings of a node say: certificates and JWTs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adsum.access.certificate_identity import CertificateIdentities
from adsum.access.control import AccessControl
from adsum.access.settings import AccessSettings
from adsum.ports import Clock

if TYPE_CHECKING:
    from adsum.access.jwt import JwtIdentities


class ExternalIdentities:
    """Gives an `AccessControl` its verifiers of certificates and JWTs, and keeps them in step with the settings."""

    def __init__(self, access: AccessControl, clock: Clock, settings: AccessSettings) -> None:
        """Raises `Invalid` if a setting is wrong."""
        self._access = access
        self._clock = clock
        self._certificates = CertificateIdentities(clock, access.tokens.find, rules=settings.certificate_rules())
        self._jwts = self._create_jwts(settings)
        access.certificates, access.jwts = self._certificates, self._jwts

    def trust_authority(self, certificates: bytes) -> None:
        """Takes certificates of this registry's own authority (PEM) for those of its tokens; empty: there is none.

        Raises `ValueError` if they can't be read.
        """
        self._certificates.configure(authority=certificates)

    async def start(self) -> None:
        """Starts reading the keys of the issuer of JWTs, if there is one."""
        if self._jwts is not None:
            await self._jwts.start()

    async def stop(self) -> None:
        """Stops reading keys. Idempotent."""
        if self._jwts is not None:
            await self._jwts.stop()

    async def reload(self, settings: AccessSettings) -> None:
        """Takes over other settings while the node runs. Ends the streams of callers that they concern.

        Raises `Invalid` if a setting is wrong; then nothing changes.
        """
        settings.check_access()
        self._certificates.configure(rules=settings.certificate_rules())
        if self._jwts is not None and settings.accepts_jwts:
            self._jwts.configure(settings)
        else:
            await self.stop()
            self._jwts = self._access.jwts = self._create_jwts(settings)
            await self.start()
        self._access.identities_changed()

    def _create_jwts(self, settings: AccessSettings) -> JwtIdentities | None:
        if not settings.accepts_jwts:
            return None
        # A node without JWTs does not load their libraries.
        from adsum.access.jwt import JwtIdentities

        return JwtIdentities(settings, self._clock, self._access.identities_changed)
