"""The identity of a gateway at its registry: the certificate that it presents, and the authorities that it trusts.

Envoy never reads the files themselves, because they are replaced one after another, and `adsum join` replaces their
folder. What fits is written to files in Envoy's folder, each of which is replaced atomically.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from adsum.cache_files import replace_private_file
from adsum.certificates.certificate import parse_certificates
from adsum.certificates.expiry import CertificateLife, certificate_life
from adsum.certificates.pairs import KeyPair, read_pair, read_pem
from adsum.client.credentials.xds import XdsCredentials
from adsum.core.errors import Invalid
from adsum.envoy.certificates import certificate
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.registry_cluster import (
    AUTHORITY_FILE,
    AUTHORITY_SECRET_FILE,
    IDENTITY_FILE,
    IDENTITY_SECRET_FILE,
    authority_secret,
    identity_secret,
)


@dataclass(frozen=True, slots=True)
class RegistryIdentity:
    """What a gateway presents to its registry, and whom it trusts.

    `authorities` is a PEM. `pair` is None if the gateway presents nothing.
    """

    authorities: bytes
    pair: KeyPair | None = None

    @property
    def expires(self) -> float:
        """The time at which the certificate expires; infinite without one."""
        return self.pair.leaf.not_valid_after_utc.timestamp() if self.pair is not None else float("inf")


def read_identity(plan: GatewayPlan) -> RegistryIdentity | None:
    """Returns the identity in the plan's files; None if the plan has none.

    Raises `CannotServe` if a file can't be read, or if the files do not belong together. Certificates may have expired.
    """
    credentials = plan.xds_credentials
    if credentials is None:
        return None
    try:
        authorities = read_pem(credentials.authority, "xds_authority")
        parse_certificates("xds_authority", authorities)
        if credentials.certificate is None or credentials.key is None:
            return RegistryIdentity(authorities)
        return RegistryIdentity(authorities, read_pair(credentials.certificate, credentials.key, "xds_cert", "xds_key"))
    except Invalid as error:
        raise CannotServe(_problem(credentials, error)) from None


def validate_identity(identity: RegistryIdentity | None, plan: GatewayPlan, folder: Path) -> None:
    """Raises `CannotServe` unless the plan's Envoy can use the identity. Writes temporary files to `folder`.

    A pair from a credentials folder is not checked: Envoy can use all certificates that a registry signs.
    """
    credentials = plan.xds_credentials
    if identity is None or identity.pair is None or credentials is None or credentials.folder is not None:
        return
    problem = certificate.pair_problem(joined_pair(identity.pair), plan, folder)
    if problem:
        raise CannotServe(f"--xds-cert {credentials.certificate}, --xds-key {credentials.key}: {problem}")


def install_identity(identity: RegistryIdentity | None, folder: Path) -> None:
    """Makes the Envoy of that folder use the identity, from its start or for new connections. Raises `OSError`."""
    if identity is None:
        return
    replace_private_file(folder / AUTHORITY_FILE, identity.authorities)
    if identity.pair is not None:
        replace_private_file(folder / IDENTITY_FILE, joined_pair(identity.pair))
    for name, secret in (
        (AUTHORITY_SECRET_FILE, authority_secret(folder)),
        (IDENTITY_SECRET_FILE, identity_secret(folder)),
    ):
        if not (folder / name).exists():
            replace_private_file(folder / name, json.dumps(secret).encode())


def joined_pair(pair: KeyPair) -> bytes:
    """Returns the chain and the key in one text."""
    return pair.chain + pair.key


def identity_lives(identity: RegistryIdentity | None, plan: GatewayPlan) -> list[CertificateLife]:
    """Returns the lives of the gateway's certificate for the registry, and of the authorities that it trusts."""
    credentials = plan.xds_credentials
    if identity is None or credentials is None:
        return []
    lives = []
    if identity.pair is not None:
        if credentials.folder is not None:
            remedy, is_renewed = "`adsum join --renew` renews it, or says why it can't be renewed", True
        else:
            remedy = "write a new one to the files of --xds-cert and --xds-key; they are reread automatically"
            is_renewed = False
        lives.append(certificate_life(identity.pair.leaf, "for the registry", remedy, is_renewed=is_renewed))
    if credentials.folder is not None:
        (authority, *_) = parse_certificates("authority", identity.authorities)
        remedy = "run `adsum init --renew` on a node that has the key of the authority"
        lives.append(certificate_life(authority, "of the registry's authority", remedy))
    return lives


def _problem(credentials: XdsCredentials, error: Invalid) -> str:
    if credentials.folder is not None:
        files = {
            "xds_authority": credentials.authority,
            "xds_cert": credentials.certificate,
            "xds_key": credentials.key,
        }
        return (
            f"the credentials of this host can't be used: {files.get(error.field)}: {error.problem}; "
            "`adsum join` writes them anew"
        )
    return f"--{error.field.replace('_', '-')}: {error.problem}"
