"""Writes the credentials with which programs on the host of a node reach it: for its operator, and for its gateway.

Each is a folder in the format that `adsum join` writes on other hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adsum.access.new_tokens import make_token
from adsum.certificates.authority import Authority, token_id_of
from adsum.certificates.pairs import make_pair
from adsum.certificates.requests import create_request, decode_key, encode_key, new_key
from adsum.certificates.server_names import ServerNames, parse_address
from adsum.client.credentials.folder import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    FORMAT_VERSION,
    KEY_FILE,
    REGISTRY_FILE,
    TOKEN_FILE,
    RegistryRecord,
)
from adsum.core.access.tokens import TokenParts, TokenRole, format_token
from adsum.core.addresses import WILDCARD_ADDRESSES, format_host_port, split_host_port
from adsum.core.errors import Invalid
from adsum.node_security.node_files import is_young, token_in, write_token
from adsum.node_security.security_folder import SecurityFolder
from adsum.wire import codec


@dataclass(frozen=True, slots=True)
class RegistryDescription:
    """The addresses and the authority of the registry, as programs on the host of a node see them.

    `authority` is a PEM; it is empty if callers find the authority in their system.
    """

    urls: Sequence[str]
    xds: Sequence[str]
    authority: bytes
    authority_hash: str


class LocalCredentials:
    """A credentials folder below the security folder of a node."""

    def __init__(self, folder: SecurityFolder, subfolder: str, role: str, name: str) -> None:
        """`role` and `name` are those of the token."""
        self._folder = folder
        self._subfolder = subfolder
        self._role = role
        self.name = name
        """The name of the token."""

    def write(self, token: TokenParts, registry: RegistryDescription) -> bool:
        """Writes the files that differ. Returns whether any did. Raises `Invalid`."""
        record = RegistryRecord(
            FORMAT_VERSION, list(registry.urls), self._role, self.name, list(registry.xds), registry.authority_hash
        )
        contents = {
            AUTHORITY_FILE: registry.authority,
            TOKEN_FILE: f"{format_token(*token)}\n".encode(),
            REGISTRY_FILE: codec.encode(record) + b"\n",
        }
        changed = [self._folder.write_if_changed(self._file(file), content) for file, content in contents.items()]
        return any(changed)

    def keep_token(self) -> TokenParts:
        """Returns the token in the folder. A missing or unreadable one is replaced by a new one. Raises `Invalid`."""
        token = token_in(self._folder.read(self._file(TOKEN_FILE)) or b"")
        if token is None:
            token = make_token()
            write_token(self._folder, self._file(TOKEN_FILE), token)
        return token

    def keep_certificate(self, authority: Authority, token_id: str, role: TokenRole, now: float) -> bool:
        """Signs a certificate that names the token, if there is none, or if half of its life is over.

        Returns whether it was signed. The key stays the same as long as it can be read. Does nothing on a node that
        can't sign. Raises `Invalid`.
        """
        if not authority.can_sign or authority.expires <= now or not self.needs_certificate(authority, token_id, now):
            return False
        request = self.certificate_request()
        signed = authority.sign(request, name=self.name, token_id=token_id, role=role, now=now)
        self._folder.write(self._file(CERTIFICATE_FILE), signed)
        return True

    def needs_certificate(self, authority: Authority, token_id: str, now: float) -> bool:
        """Returns whether a certificate that names the token is missing, or half of its life is over."""
        key = self._folder.read(self._file(KEY_FILE)) or b""
        chain = self._folder.read(self._file(CERTIFICATE_FILE)) or b""
        return not _is_right(chain, key, authority, token_id, now)

    def certificate_request(self) -> bytes:
        """Returns a request for a certificate. Its key stays the same as long as it can be read. Raises `Invalid`."""
        try:
            private = decode_key("data", self._folder.read(self._file(KEY_FILE)) or b"")
        except Invalid:
            private = new_key()
            self._folder.write(self._file(KEY_FILE), encode_key(private))
        return create_request(private, self.name)

    def install_certificate(self, chain: bytes, token_id: str) -> None:
        """Takes over a certificate that another node has signed. Raises `Invalid` unless it names the token."""
        pair = make_pair(chain, self._folder.read(self._file(KEY_FILE)) or b"", "data", "data")
        if token_id_of(pair.leaf) != token_id:
            raise Invalid("data", "keeps its certificates: another node signed one of another token")
        self._folder.write(self._file(CERTIFICATE_FILE), chain)

    def _file(self, name: str) -> str:
        return f"{self._subfolder}/{name}"


def _is_right(chain: bytes, key: bytes, authority: Authority, token_id: str, now: float) -> bool:
    """Returns whether the certificate can stay: it is the authority's, for this token, and young enough."""
    try:
        pair = make_pair(chain, key)
    except Invalid:
        return False
    return is_young(pair.leaf, authority, now) and token_id_of(pair.leaf) == token_id


def local_address(listen: str, names: ServerNames) -> str:
    """Returns the HOST:PORT at which callers on this host reach a listener, by a name of its certificate.

    A listener on every address is reached on loopback. If the certificate does not have the address, its host name
    `localhost` or another one is used.
    """
    host, port = split_host_port(listen)
    local = "127.0.0.1" if host in WILDCARD_ADDRESSES else host
    address = parse_address(local)
    if address is None or address in names.addresses:
        return format_host_port(local, int(port))
    usable = [name for name in names.dns_names if not name.startswith("*")]
    named = "localhost" if "localhost" in usable and address.is_loopback else next(iter(usable), local)
    return format_host_port(named, int(port))
