"""Files that only their owner may read, and the user's cache folder.

The folder follows the XDG convention on every platform. That takes a few lines; a library for it would be one more
dependency of every client.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """Returns `$XDG_CACHE_HOME/adsum/NAME`, by default below ~/.cache; None if the user has no home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "adsum" / name
    except RuntimeError:
        return None


def write_private_file(path: Path, content: bytes) -> None:
    """Writes a file that only its owner may read. Raises `OSError`."""
    _write(path, content, os.O_TRUNC)


def replace_private_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replaces a file atomically: readers see the old content or the new one. Raises `OSError`.

    Unless `durable`, the file is not synced: after a power failure it may have the old content, or be missing or empty.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(new, content, os.O_EXCL, durable=durable)
        new.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def _write(path: Path, content: bytes, flag: int, *, durable: bool = False) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes the name of a new file in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
