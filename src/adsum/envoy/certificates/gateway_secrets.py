"""The certificates and keys of a gateway: of its listeners, and for its registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from adsum.certificates.certificate import parse_certificates
from adsum.certificates.expiry import CertificateLife, certificate_life
from adsum.core.errors import Invalid
from adsum.envoy.certificates import certificate, identity
from adsum.envoy.certificates.identity import RegistryIdentity
from adsum.envoy.certificates.renewal import FileRenewal
from adsum.envoy.plan import GatewayPlan


@dataclass(frozen=True, slots=True)
class GatewaySecrets:
    """The certificates and keys of one Envoy.

    `pair` is that of the listeners, chain and key; empty without TLS. `identity` is None if the registry is followed in
    plain text.
    """

    pair: bytes = field(default=b"", repr=False)
    identity: RegistryIdentity | None = None

    def install(self, folder: Path) -> None:
        """Makes the Envoy of that folder use them, from its start or for new connections. Raises `OSError`."""
        certificate.install_pair(self.pair, folder)
        identity.install_identity(self.identity, folder)

    def lives(self, plan: GatewayPlan) -> list[CertificateLife]:
        """Returns the lives of the certificates, for warnings before they expire."""
        lives = identity.identity_lives(self.identity, plan)
        if plan.profile.tls_certificate:
            try:
                (leaf, *_) = parse_certificates("tls_cert", self.pair)
            except Invalid:
                return lives
            remedy = "write a new one to the files of --tls-cert and --tls-key; they are reread automatically"
            lives.append(certificate_life(leaf, "of the listeners", remedy))
        return lives


class SecretRenewal:
    """Polls the certificate files of a gateway. `secrets` are the latest valid ones."""

    def __init__(self, secrets: GatewaySecrets) -> None:
        self._pair = FileRenewal(
            "the certificate of the listeners", secrets.pair, certificate.read_pair, certificate.validate_pair
        )
        self._identity = FileRenewal(
            "the certificate for the registry",
            secrets.identity,
            identity.read_identity,
            identity.validate_identity,
        )

    @property
    def secrets(self) -> GatewaySecrets:
        """The latest valid certificates and keys."""
        return GatewaySecrets(self._pair.content, self._identity.content)

    def poll(self, plan: GatewayPlan, folder: Path) -> list[str]:
        """Returns what has been replaced by something new and valid, as nouns. Blocks on the disk.

        Problems are logged, each once.
        """
        return [renewal.noun for renewal in (self._pair, self._identity) if renewal.poll(plan, folder)]


def read_secrets(plan: GatewayPlan, folder: Path) -> GatewaySecrets:
    """Returns the valid certificates and keys in the plan's files. Raises `CannotServe`. Blocks on the disk."""
    pair = certificate.read_pair(plan)
    certificate.validate_pair(pair, plan, folder)
    found = identity.read_identity(plan)
    identity.validate_identity(found, plan, folder)
    return GatewaySecrets(pair, found)
