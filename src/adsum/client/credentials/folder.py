"""The credentials folder of a host: what `adsum join` writes, and what every command and library on the host reads.

Files: `registry.json` (which registry, and under which name), `authority.pem` (the certificate of the registry's
authority), `token`, and `client.pem` with `client.key` if the host has a certificate. The folder has the mode 0700 and
all files 0600 from their creation on.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from adsum.cache_files import replace_private_file, write_private_file
from adsum.core.errors import Invalid
from adsum.wire import codec

REGISTRY_FILE: Final = "registry.json"
AUTHORITY_FILE: Final = "authority.pem"
TOKEN_FILE: Final = "token"
CERTIFICATE_FILE: Final = "client.pem"
KEY_FILE: Final = "client.key"

OPERATOR_ROLE: Final = "operator"
"""The role in the folder that a node writes for commands on its own host."""
FORMAT_VERSION: Final = 1
"""The version of the folder's format. A folder of a later version is refused."""
MAX_FILE_BYTES: Final = 256 * 1024
"""Bytes of a file of the folder, or of a token file. A longer one is refused."""
MAX_AUTHORITY_BYTES: Final = 1024 * 1024
"""Bytes of a file with the authorities to trust. A longer one is refused. All public authorities take 0.3 MiB."""
MAX_TOKEN_TEXT: Final = 16 * 1024
"""Characters of a token or JWT. A longer one is refused."""
MAX_ADDRESSES: Final = 256
"""Addresses of nodes that the folder names. A folder with more is refused."""
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
"""Permissions of everyone but the owner."""

_Addresses = Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(max_length=MAX_ADDRESSES)]


class RegistryRecord(Struct, frozen=True):
    """The content of `registry.json`. A later version must be able to read it, so defaults never change."""

    version: int
    urls: Annotated[_Addresses, Meta(min_length=1)]
    role: str = "client"
    name: str = ""
    xds: _Addresses = []
    authority_hash: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """The credentials of this host for one registry.

    `urls` and `xds` are the addresses of its nodes. `authority` is a PEM. `authority_hash` is SHA-256 of the public key
    of the authority, in hex. `certificate` and `key` are the files of this host's own certificate; None without one.
    """

    urls: tuple[str, ...]
    name: str = ""
    role: str = "client"
    xds: tuple[str, ...] = ()
    authority: str = ""
    authority_hash: str = ""
    token: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    folder: Path | None = None
    """The folder that they were read from."""


def parse_registry_file(content: bytes) -> RegistryRecord:
    """Returns the content of `registry.json`. Raises `Invalid`."""
    record = codec.decode(content, RegistryRecord)
    if record.version > FORMAT_VERSION:
        raise Invalid("version", f"must be at most {FORMAT_VERSION}, not {record.version}: upgrade Adsum here")
    return record


def parse_token_file(content: bytes) -> str:
    """Returns the token in a file: its only line. Raises `Invalid`; its message repeats nothing of the content."""
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Invalid("token", "must be one line of ASCII") from None
    if not text:
        raise Invalid("token", "must be one line with a token, and the file is empty")
    if len(text) > MAX_TOKEN_TEXT or not text.isprintable() or " " in text:
        raise Invalid("token", f"must be one line with a token of at most {MAX_TOKEN_TEXT} characters")
    return text


def exposure(mode: int, owner: int, user: int) -> str:
    """Returns the reason why a secret file is exposed to others, as a clause; "" if it is not.

    As ssh does for private keys, only files of the user itself are judged: whoever else owns a file that this user may
    read, has given it on purpose.
    """
    if owner != user or not mode & OTHERS:
        return ""
    return f"others than its owner may read it (mode {stat.S_IMODE(mode):04o}): chmod 600"


class CredentialsFolder:
    """A credentials folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> RegistryCredentials:
        """Returns the credentials.

        Raises `FileNotFoundError` if there is no folder with a `registry.json`, `PermissionError` if this user may not
        read it, and `Invalid` if its content is wrong or its secrets are exposed.
        """
        content = self._read(REGISTRY_FILE)
        try:
            record = parse_registry_file(content)
        except Invalid as error:
            raise self._wrong(REGISTRY_FILE, str(error) if error.field else error.problem) from None
        has_certificate = self._file(CERTIFICATE_FILE).exists() and self._file(KEY_FILE).exists()
        if has_certificate:
            self._check_exposure(KEY_FILE, self._file(KEY_FILE).stat())
        return RegistryCredentials(
            urls=tuple(record.urls),
            name=record.name,
            role=record.role,
            xds=tuple(record.xds),
            authority=self._authority(),
            authority_hash=record.authority_hash,
            token=self._token(),
            certificate=self._file(CERTIFICATE_FILE) if has_certificate else None,
            key=self._file(KEY_FILE) if has_certificate else None,
            folder=self.path,
        )

    def write(self, credentials: RegistryCredentials, certificate: str = "", key: str = "") -> None:
        """Writes the folder as a whole, in place of the one before. Raises `OSError`.

        `certificate` and `key` are PEMs.
        """
        record = RegistryRecord(
            FORMAT_VERSION,
            list(credentials.urls),
            credentials.role,
            credentials.name,
            list(credentials.xds),
            credentials.authority_hash,
        )
        files = {
            AUTHORITY_FILE: credentials.authority.encode(),
            KEY_FILE: key.encode(),
            CERTIFICATE_FILE: certificate.encode(),
            TOKEN_FILE: f"{credentials.token}\n".encode() if credentials.token else b"",
            REGISTRY_FILE: codec.encode(record) + b"\n",
        }
        _replace_folder(self.path, {name: content for name, content in files.items() if content})

    def replace_authority(self, certificate: str) -> None:
        """Replaces the certificate of the authority. Raises `OSError`."""
        replace_private_file(self._file(AUTHORITY_FILE), certificate.encode())

    def replace_certificate(self, certificate: str) -> None:
        """Replaces the certificate of this host by a new one of the same key. Raises `OSError`."""
        replace_private_file(self._file(CERTIFICATE_FILE), certificate.encode())

    def _file(self, name: str) -> Path:
        return self.path / name

    def _token(self) -> str:
        try:
            content = self._read(TOKEN_FILE)
        except FileNotFoundError:
            return ""
        self._check_exposure(TOKEN_FILE, self._file(TOKEN_FILE).stat())
        try:
            return parse_token_file(content)
        except Invalid as error:
            raise self._wrong(TOKEN_FILE, error.problem) from None

    def _authority(self) -> str:
        try:
            return decode_pem(self._read(AUTHORITY_FILE))
        except FileNotFoundError:
            return ""

    def _read(self, name: str) -> bytes:
        try:
            return read_bounded(self._file(name))
        except Invalid as error:
            raise self._wrong(name, error.problem) from None

    def _check_exposure(self, name: str, found: os.stat_result) -> None:
        problem = exposure(found.st_mode, found.st_uid, os.geteuid())
        if problem:
            raise self._wrong(name, f"{problem} {self._file(name)}")

    def _wrong(self, name: str, problem: str) -> Invalid:
        """Returns the error for a file of the folder."""
        return Invalid("credentials", f"{self._file(name)}: {problem}")


def read_bounded(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Returns the content of a file. Raises `OSError`, and `Invalid` if it has more than `max_bytes`."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise Invalid("file", f"must have at most {max_bytes} bytes")
    return content


def decode_pem(content: bytes) -> str:
    """Returns a PEM as text, without the characters outside of ASCII that bundles have in comments.

    `ssl` refuses these characters, and no certificate has them.
    """
    return content.decode("ascii", "ignore")


def _replace_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder beside `path` and renames it. A crash leaves the old folder or the new one, or neither.

    A folder that can't be renamed, such as the mount of a volume, gets its files one by one, and `registry.json` last.
    """
    import shutil  # Only a join needs it.

    # Only the folder itself is private: others read /etc/adsum/adsum.toml beside it, and it may be given to a user.
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    suffix = f"{os.getpid()}.{secrets.token_hex(4)}"
    new, old = path.with_name(f".{path.name}.new.{suffix}"), path.with_name(f".{path.name}.old.{suffix}")
    if path.is_mount():
        _write_in_place(path, files)
        return
    new.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            write_private_file(new / name, content)
        with suppress(FileNotFoundError):
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            with suppress(FileNotFoundError):
                old.rename(path)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_in_place(path: Path, files: Mapping[str, bytes]) -> None:
    path.chmod(0o700)
    for name in (TOKEN_FILE, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE):
        if name not in files:
            (path / name).unlink(missing_ok=True)
    for name, content in files.items():
        replace_private_file(path / name, content)
