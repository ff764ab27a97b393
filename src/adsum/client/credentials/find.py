"""Finds the credentials of this host, and decides for which nodes they may be used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.core.addresses import is_loopback_host
from adsum.core.errors import Invalid

CREDENTIALS_VARIABLE: Final = "ADSUM_CREDENTIALS"
TOKEN_FILE_VARIABLE: Final = "ADSUM_TOKEN_FILE"
AUTHORITY_FILE_VARIABLE: Final = "ADSUM_AUTHORITY_FILE"
SYSTEM_FOLDER: Final = Path("/etc/adsum/registry")
"""The folder of a host that was joined by root."""
SYSTEM_OPERATOR_FOLDER: Final = Path("/var/lib/adsum/security/operator")
"""The folder that a node writes which runs as a system service."""

_PORTS: Final = {"http": 80, "https": 443}


def user_folder(environ: Mapping[str, str]) -> Path | None:
    """Returns the folder of a host that was joined by this user; None if the user has no home directory."""
    return _below(environ.get("XDG_CONFIG_HOME", ""), ".config", "adsum/registry")


def candidate_folders(environ: Mapping[str, str]) -> list[Path]:
    """Returns the folders in which credentials may be, in the order in which they are tried."""
    operator = _below(environ.get("XDG_DATA_HOME", ""), ".local/share", "adsum/security/operator")
    folders = (user_folder(environ), SYSTEM_FOLDER, operator, SYSTEM_OPERATOR_FOLDER)
    return [folder for folder in folders if folder is not None]


def join_folder(environ: Mapping[str, str], user: int) -> Path:
    """Returns the folder that a join writes, such that `find_credentials` finds it first. Raises `Invalid`.

    It is the one that is named or exists, else the system's for root (user 0), else the user's own.
    """
    if environ.get(CREDENTIALS_VARIABLE):
        return Path(environ[CREDENTIALS_VARIABLE])
    own = user_folder(environ)
    if own is None and user != 0:
        raise Invalid("folder", "must be given: this user has no home directory")
    return SYSTEM_FOLDER if own is None or (user == 0 and not own.exists()) else own


def find_credentials(environ: Mapping[str, str] | None = None) -> RegistryCredentials | None:
    """Returns the credentials in the first folder that this user can read; None if there are none.

    Raises `Invalid` if the folder that `ADSUM_CREDENTIALS` names can't be read, or if the content of a folder is wrong.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(CREDENTIALS_VARIABLE)
    if named:
        return read_credentials(Path(named), CREDENTIALS_VARIABLE)
    for path in candidate_folders(environ):
        try:
            return CredentialsFolder(path).read()
        except OSError:
            continue
    return None


def read_credentials(path: Path, field: str = "credentials") -> RegistryCredentials:
    """Returns the credentials in a folder that was named. Raises `Invalid`."""
    try:
        return CredentialsFolder(path).read()
    except OSError as error:
        raise Invalid(
            field, f"names a folder that can't be read: {path}: {error.strerror}; `adsum join` writes one"
        ) from None


def are_nodes_of(urls: Iterable[str], credentials: RegistryCredentials) -> bool:
    """Returns whether all URLs are nodes of the registry that the credentials are for."""
    known = set(map(_origin, credentials.urls))
    return all(_origin(url) in known for url in urls)


def may_carry_secrets(url: str) -> bool:
    """Returns whether a token may be sent to the URL: over TLS, or without leaving this host."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback_host(parts.hostname or "")


def check_may_carry_secrets(urls: Sequence[str], field: str) -> None:
    """Raises `Invalid` if a token would be readable on the network."""
    for url in urls:
        if not may_carry_secrets(url):
            host = urlsplit(url).netloc.rpartition("@")[2]
            raise Invalid(
                field,
                f"must be https://{host}, not http://: a token is never sent over plain http to another host, because "
                "everyone on the network could read it",
            )


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", url, 0


def _below(base: str, default: str, name: str) -> Path | None:
    """Returns a path below an XDG folder, by default below the home directory; None if there is none."""
    try:
        return (Path(base) if base.startswith("/") else Path.home() / default) / name
    except RuntimeError:
        return None
