"""The folder with the keys, certificates and tokens of a node: `DATA/security`, which only its owner may read."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.cache_files import replace_private_file
from adsum.core.errors import AdsumError, Invalid

FOLDER_NAME: Final = "security"
FOLDER_MODE: Final = 0o700
MAX_FILE_BYTES: Final = 1024 * 1024
"""Bytes of a file in the folder. A longer one is refused."""

AUTHORITY_CERTIFICATE: Final = "authority.pem"
AUTHORITY_KEY: Final = "authority.key"
"""The key of the registry's authority. Only nodes that issue certificates have it."""
NODE_CERTIFICATE: Final = "node.pem"
NODE_KEY: Final = "node.key"
ADMIN_TOKEN: Final = "admin-token"
NODE_TOKEN: Final = "node-token"
"""The token by which a node that joined renews its certificate. Nodes with the authority's key need none."""
NEW_AUTHORITY: Final = "new-authority"
"""The hash of an authority that is to replace the one of the registry at the next start of the node."""
OPERATOR_FOLDER: Final = "operator"
"""A folder with credentials for the commands that run on this host."""
GATEWAY_FOLDER: Final = "gateway"
"""A folder with credentials for the gateway that runs in the process of the node."""
LOCK: Final = "lock"

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_log = logging.getLogger("adsum.security")


class SecurityFolderInUse(AdsumError):
    """Another node uses the folder."""


class SecurityFolder:
    """The folder and its files. Methods raise `Invalid` for the setting `data` where a file can't be used."""

    def __init__(self, data: Path) -> None:
        """`data` is the folder in which this one is made."""
        self.path: Final = data / FOLDER_NAME
        self._lock: int | None = None

    def file(self, name: str) -> Path:
        """Returns the path of a file."""
        return self.path / name

    def create(self) -> None:
        """Makes the folder, unless it exists, readable for its owner alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
            make_private_folder(self.path)
            self._give_to_owner(self.path)
        except OSError as error:
            raise self._unusable(self.path, error) from None

    def lock(self) -> None:
        """Keeps other nodes from using the folder until `unlock`. Raises `SecurityFolderInUse`."""
        path = self.file(LOCK)
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise SecurityFolderInUse(
                f"another node uses {self.path}: start each node of a host with --data and a folder of its own"
            ) from None
        except OSError as error:
            self.unlock()
            raise self._unusable(path, error) from None

    def unlock(self) -> None:
        """Lets other nodes use the folder; idempotent."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file; None if there is no such file."""
        path = self.file(name)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(path, error) from None
        if len(content) > MAX_FILE_BYTES:
            raise Invalid("data", f"{path} must have at most {MAX_FILE_BYTES} bytes")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replaces a file atomically and durably. Only its owner may read it."""
        path = self.file(name)
        try:
            if path.parent != self.path:
                make_private_folder(path.parent)
                self._give_to_owner(path.parent)
            replace_private_file(path, content, durable=True)
            self._give_to_owner(path)
        except OSError as error:
            raise self._unusable(path, error) from None

    def remove(self, name: str) -> None:
        """Removes a file, if it is there. Raises `Invalid`."""
        path = self.file(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(path, error) from None

    def write_if_changed(self, name: str, content: bytes) -> bool:
        """Replaces a file unless it has this content. Returns whether it was replaced.

        A file that can't be read, because root has written it, is replaced, too.
        """
        with suppress(Invalid):
            if self.read(name) == content:
                return False
        self.write(name, content)
        return True

    def _give_to_owner(self, path: Path) -> None:
        """Gives a file that root has made to the owner of the data folder, whose node must read it."""
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            if owner.st_uid != 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _unusable(self, path: Path, error: OSError) -> Invalid:
        return Invalid("data", f"must be a folder that this user may use: {path}: {error.strerror}")


def make_private_folder(path: Path) -> None:
    """Makes a folder for its owner alone, or takes the rights of others from an existing one. Raises `OSError`."""
    with suppress(FileExistsError):
        path.mkdir(mode=FOLDER_MODE)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        _log.warning("other users could use %s, whose files are secret; now only its owner can", path)
        path.chmod(mode & ~_OTHERS)
