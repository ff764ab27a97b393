"""Identifies the callers of a node by client certificates and JWTs, as its settings say."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from adsum.access.control import AccessControl
from adsum.access.settings import AccessSettings
from adsum.ports import Clock

if TYPE_CHECKING:
    from adsum.access.certificate_identity import CertificateIdentities
    from adsum.access.jwt import JwtIdentities


class CallerIdentities:
    """Gives an `AccessControl` its verifiers of certificates and JWTs, and keeps them in step with the settings.

    Their libraries are loaded only by a node that uses them.
    """

    def __init__(
        self, access: AccessControl, clock: Clock, settings: AccessSettings, authority: bytes | None = None
    ) -> None:
        """`authority`: the certificates of the registry's own authority (PEM), whose certificates stand for tokens.

        Empty: the certificates of the node are of another authority. None: the node serves no TLS, so no caller has a
        certificate. Raises `Invalid` if a setting is wrong, or if the authority can't be read.
        """
        self._access = access
        self._clock = clock
        self._settings = settings
        self._certificates = self._create_certificates(settings, authority) if authority is not None else None
        self._jwts = self._create_jwts(settings)
        access.certificates, access.jwts = self._certificates, self._jwts

    async def start(self) -> None:
        """Starts reading the keys of the issuer of JWTs, if there is one."""
        if self._jwts is not None:
            await self._jwts.start()

    async def stop(self) -> None:
        """Stops reading keys. Idempotent."""
        if self._jwts is not None:
            await self._jwts.stop()

    async def reload(self, settings: AccessSettings) -> None:
        """Takes over other settings while the node runs, and reads the keys of JWTs again.

        Ends the streams of callers with certificates of other authorities and with JWTs if a setting changed. Raises
        `Invalid` if a setting is wrong; then nothing changes.
        """
        settings.check_access()
        if _values(settings) == _values(self._settings):
            if self._jwts is not None:
                self._jwts.read_keys_soon()
            return
        self._settings = settings
        if self._certificates is not None:
            self._certificates.configure(rules=settings.certificate_rules())
        if self._jwts is not None and settings.accepts_jwts:
            self._jwts.configure(settings)
        else:
            await self.stop()
            self._jwts = self._access.jwts = self._create_jwts(settings)
            await self.start()
        self._access.identities_changed()

    def authority_changed(self, authority: bytes) -> None:
        """Takes over another certificate of the registry's own authority. Streams go on if its key is the same."""
        if self._certificates is not None:
            self._certificates.configure(authority=authority)

    def _create_certificates(self, settings: AccessSettings, authority: bytes) -> CertificateIdentities:
        from adsum.access.certificate_identity import CertificateIdentities

        find = self._access.tokens.find
        return CertificateIdentities(self._clock, find, authority=authority, rules=settings.certificate_rules())

    def _create_jwts(self, settings: AccessSettings) -> JwtIdentities | None:
        if not settings.accepts_jwts:
            return None
        from adsum.access.jwt import JwtIdentities

        return JwtIdentities(settings, self._clock, self._access.identities_changed)


def _values(settings: AccessSettings) -> list[object]:
    return [getattr(settings, field.name) for field in fields(AccessSettings)]
