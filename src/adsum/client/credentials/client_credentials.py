"""The credentials of one client: what it sends to prove who it is, and which authority it trusts."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final

from adsum.client.credentials.find import (
    AUTHORITY_FILE_VARIABLE,
    TOKEN_FILE_VARIABLE,
    are_nodes_of,
    check_may_carry_secrets,
    may_carry_secrets,
)
from adsum.client.credentials.folder import (
    AUTHORITY_FILE,
    MAX_AUTHORITY_BYTES,
    TOKEN_FILE,
    CredentialsFolder,
    RegistryCredentials,
    decode_pem,
    exposure,
    parse_token_file,
    read_bounded,
)
from adsum.core.errors import Invalid

MIN_RELOAD_INTERVAL: Final = 1.0
"""Seconds between two reads of the files. Within them a refused token is not read again."""
AUTHORIZATION: Final = "Authorization"
NO_TOKEN: Final = (
    "no token was sent: join this host to the registry with `adsum join`, or name a file with a token by "
    f"--token-file or {TOKEN_FILE_VARIABLE}"
)
JOINED_ROLES: Final = frozenset({"client", "gateway"})
"""The roles whose credentials come from a join line. A node keeps those on its own host valid by itself. They are
values of `TokenRole`, which programs without a token don't load."""
REJOIN: Final = "; `adsum join` with a new line of `adsum token invite` replaces it"

_log = logging.getLogger(__name__)


class ClientCredentials:
    """A token, a trusted authority and a client certificate, from files that may change while the client runs."""

    def __init__(
        self,
        joined: RegistryCredentials | None = None,
        token_file: Path | None = None,
        authority_file: Path | None = None,
    ) -> None:
        """`joined`: the credentials of this host. The files outrank what they contain. Raises `Invalid`."""
        self.joined = joined
        self._token_file = token_file
        self._authority_file = authority_file
        self._token = _read_token(token_file) if token_file is not None else joined.token if joined is not None else ""
        if authority_file is not None:
            self._authority = _read_authority(authority_file)
        else:
            self._authority = joined.authority if joined is not None else ""
        self._read_at = -inf
        if token_file is not None:
            _warn_if_exposed(token_file)

    @property
    def has_token(self) -> bool:
        """True if there is a token to send."""
        return bool(self._token)

    @property
    def authority(self) -> str:
        """The certificates of the authorities to trust, as PEM; "" for those of this system."""
        return self._authority

    @property
    def authority_hash(self) -> str:
        """SHA-256 of the public key of the registry's authority, in hex; "" if it is not known."""
        return self.joined.authority_hash if self.joined is not None and self._authority_file is None else ""

    @property
    def origin(self) -> str:
        """Where the token comes from, as a clause for errors."""
        file = self._token_path()
        if not self._token or file is None:
            return NO_TOKEN
        role = self.joined.role if self.joined is not None and self._token_file is None else ""
        return f"the token comes from {file}{REJOIN if role in JOINED_ROLES else ''}"

    def headers(self, url: str) -> dict[str, str]:
        """Returns the headers that prove who this client is to the node at `url`.

        There are none where everyone on the network could read the token.
        """
        if not self._token or not may_carry_secrets(url):
            return {}
        return {AUTHORIZATION: f"Bearer {self._token}"}

    def reload(self, now: float) -> bool:
        """Reads the files again. Returns whether the token or the authority has changed.

        `now` is the monotonic time. Within `MIN_RELOAD_INTERVAL` seconds after the latest read nothing is read. Files
        that can't be read leave everything as it is.
        """
        if now - self._read_at < MIN_RELOAD_INTERVAL:
            return False
        self._read_at = now
        before = self._token, self._authority
        self._reload_token()
        self._reload_authority()
        return (self._token, self._authority) != before

    def replace_authority(self, certificate: str) -> bool:
        """Trusts another certificate of the same authority, a PEM. Returns False if it is the present one.

        The folder keeps it if this user may write there.
        """
        if certificate.split() == self._authority.split():
            return False
        self._authority = certificate
        if self.joined is None or self.joined.folder is None:
            return True
        try:
            CredentialsFolder(self.joined.folder).replace_authority(certificate)
        except OSError as error:
            _log.warning("%s: the new certificate of the authority is not kept: %s", self.joined.folder, error.strerror)
        return True

    def make_ssl_context(self) -> ssl.SSLContext:
        """Returns a context that trusts the authority, or without one the authorities of this system. Raises `Invalid`.

        A client certificate is presented only without a token: an expired one would end every connection, and the token
        proves the same caller.
        """
        try:
            context = ssl.create_default_context(cadata=self._authority or None)
        except ssl.SSLError:
            raise Invalid("authority_file", f"{self._authority_path()}: must be certificates in PEM") from None
        joined = self.joined
        if joined is not None and joined.certificate is not None and not self._token:
            try:
                context.load_cert_chain(joined.certificate, joined.key)
            except (OSError, ssl.SSLError) as error:
                raise Invalid(
                    "credentials", f"{joined.certificate}: must be a certificate with its key: {error.strerror}"
                ) from None
        return context

    def _token_path(self) -> Path | None:
        return self._token_file or self._joined_path(TOKEN_FILE)

    def _authority_path(self) -> Path | None:
        return self._authority_file or self._joined_path(AUTHORITY_FILE)

    def _joined_path(self, name: str) -> Path | None:
        return self.joined.folder / name if self.joined is not None and self.joined.folder is not None else None

    def _reload_token(self) -> None:
        path = self._token_path()
        if path is None:
            return
        try:
            self._token = parse_token_file(read_bounded(path))
        except (OSError, Invalid) as error:
            _log.debug("%s: not read again: %s", path, error)

    def _reload_authority(self) -> None:
        path = self._authority_path()
        if path is None:
            return
        try:
            self._authority = decode_pem(read_bounded(path, MAX_AUTHORITY_BYTES)) or self._authority
        except (OSError, Invalid) as error:
            _log.debug("%s: not read again: %s", path, error)


def load_client_credentials(
    urls: Sequence[str],
    joined: RegistryCredentials | None,
    *,
    token_file: str | Path | None = None,
    authority_file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    urls_field: str = "urls",
) -> ClientCredentials | None:
    """Returns the credentials for the nodes at `urls`; None if there are none to send and none to check.

    Without a file the variables `ADSUM_TOKEN_FILE` and `ADSUM_AUTHORITY_FILE` count. The credentials of this host are
    used only for the registry that they are for. Raises `Invalid`.
    """
    environ = os.environ if environ is None else environ
    token_file = token_file or environ.get(TOKEN_FILE_VARIABLE)
    authority_file = authority_file or environ.get(AUTHORITY_FILE_VARIABLE)
    if joined is not None and not are_nodes_of(urls, joined):
        joined = None
    if joined is None and not token_file and not authority_file:
        return None
    credentials = ClientCredentials(
        joined, Path(token_file) if token_file else None, Path(authority_file) if authority_file else None
    )
    if credentials.has_token:
        check_may_carry_secrets(urls, urls_field)
    return credentials


def _read_token(path: Path) -> str:
    try:
        return parse_token_file(read_bounded(path))
    except OSError as error:
        raise Invalid("token_file", f"{path} can't be read: {error.strerror}") from None
    except Invalid as error:
        raise Invalid("token_file", f"{path}: {error.problem}") from None


def _read_authority(path: Path) -> str:
    try:
        text = decode_pem(read_bounded(path, MAX_AUTHORITY_BYTES))
    except OSError as error:
        raise Invalid("authority_file", f"{path} can't be read: {error.strerror}") from None
    except Invalid as error:
        raise Invalid("authority_file", f"{path}: {error.problem}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise Invalid("authority_file", f"{path}: must be certificates in PEM")
    return text


def _warn_if_exposed(path: Path) -> None:
    found = path.stat()
    problem = exposure(found.st_mode, found.st_uid, os.geteuid())
    if problem:
        _log.warning("%s: %s %s", path, problem, path)
