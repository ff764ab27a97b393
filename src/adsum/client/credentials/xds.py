"""Chooses the xDS addresses of a registry, and the files by which it and a caller over xDS recognize each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.client.credentials.find import are_nodes_of, find_credentials
from adsum.client.credentials.folder import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, RegistryCredentials
from adsum.client.native.nodes import parse_urls
from adsum.core.addresses import is_loopback_host, split_host_port
from adsum.core.errors import Invalid

NO_CERTIFICATE: Final = (
    "has no certificate, which the registry requires over xDS: join this host with a line of "
    "`adsum token invite --for gateway` or `--for client`, or name your own certificate"
)


@dataclass(frozen=True, slots=True)
class XdsCredentials:
    """The files by which a registry and a caller over xDS recognize each other. They are read again when replaced.

    `authority`: the certificates of the authorities that the caller trusts, as PEM. `certificate` and `key`: what the
    caller presents; both or none. `folder`: the credentials folder of this host, if the files are in one.
    """

    authority: Path
    certificate: Path | None = None
    key: Path | None = None
    folder: Path | None = None


def find_joined_registry(url: str = "") -> RegistryCredentials | None:
    """Returns the credentials of this host for the registry at `url`, or for the one that it has joined without a URL.

    Returns None if it has not joined that one. Raises `Invalid`.
    """
    joined = find_credentials()
    if joined is None or (url and not are_nodes_of(parse_urls(url), joined)):
        return None
    return joined


def joined_xds_credentials(
    addresses: Sequence[str], joined: RegistryCredentials | None, *, may_lack_certificate: bool = False
) -> XdsCredentials | None:
    """Returns the files for the registry's xDS addresses (HOST:PORT) on a host that has joined it.

    None means plain text: the host has not joined the registry, or the addresses are others on this host itself, such
    as those of a registry that only listens on loopback. Raises `Invalid` if this host has no certificate, unless it
    `may_lack_certificate`, because the caller gets one by the token.
    """
    if joined is None or joined.folder is None:
        return None
    others = [address for address in addresses if address not in joined.xds]
    if others and all(is_loopback_host(split_host_port(address)[0]) for address in others):
        return None
    if joined.certificate is None and not (may_lack_certificate and joined.token):
        raise Invalid("credentials", f"{joined.folder} {NO_CERTIFICATE}")
    return folder_credentials(joined.folder)


def folder_credentials(folder: Path) -> XdsCredentials:
    """Returns the files of a credentials folder."""
    return XdsCredentials(folder / AUTHORITY_FILE, folder / CERTIFICATE_FILE, folder / KEY_FILE, folder)
