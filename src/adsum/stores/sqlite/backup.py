"""Backs up a registry's SQLite file while it is in use, and restores it from a backup. Blocking."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from adsum.core.catalog.documents import ACCESS_KINDS, INTENT_KINDS
from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite import schema
from adsum.stores.sqlite.file import SqliteFile
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock
from adsum.stores.sqlite.opening import create_folder, sync_folder


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """The contents of a copy. `documents` are routes and upstreams; `tokens` includes invites.

    `replaced_file`: the path of the file that `restore` replaced; None if there was none.
    """

    instances: int
    documents: int
    tokens: int
    revision: int
    replaced_file: Path | None = None


def back_up(path: Path, target: Path) -> BackupSummary:
    """Copies the registry's file at `path` to the new file `target`. A daemon may use `path` meanwhile.

    Raises `StoreOpenFailed` if `path` does not exist or can't be read, and if `target` exists or can't be written.
    """
    if target.exists():
        raise StoreOpenFailed(f"{target} exists: name a new file, or move that one away")
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        _copy(path, part)
        copied = _verified(part, path)
        with closing(sqlite3.connect(part)) as copy:
            _disable_wal(copy)  # Reading the copy turned its write-ahead log on.
        os.link(part, target)  # Unlike a rename, this never replaces a file that appeared meanwhile.
        sync_folder(target.parent)
    except OSError as error:
        raise StoreOpenFailed(f"can't write {target}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StoreOpenFailed(f"can't write {target}: {error}") from error
    finally:
        _remove(part)
    return copied


def restore(backup: Path, path: Path) -> BackupSummary:
    """Replaces the registry's file at `path` with a copy of `backup`, in a new epoch.

    The replaced file is kept as `PATH.before-restore` until the next restore. Raises `StoreOpenFailed` while a daemon
    uses `path`, and if `backup` is not an intact registry file; then nothing has changed.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        create_folder(path.parent)
        lock = FileLock(path)
        try:
            _acquire(lock, path)
            _copy(backup, part)
            copied = _verified(part, backup, new_epoch=True)
            _set_owner(path, part, lock.path)
            replaced = _replace(path, part)
            # An empty progress, so that the next start does not compare this file with the replaced one.
            lock.save(DatabaseProgress("", 0, 0, 0), durable=True)
            sync_folder(path.parent)
        finally:
            lock.release()
    except OSError as error:
        raise StoreOpenFailed(f"can't write {path}: {error.strerror}") from error
    finally:
        _remove(part)
    return replace(copied, replaced_file=replaced)


def _acquire(lock: FileLock, path: Path) -> None:
    """Acquires the lock of a database. Raises `StoreOpenFailed` with the path of the database, and `OSError`."""
    try:
        lock.acquire()
    except StoreOpenFailed as refused:
        raise StoreOpenFailed(f"{path}: {refused}") from None


def _set_owner(path: Path, *files: Path) -> None:
    """Gives files the owner of a database, or of its folder if the database does not exist yet.

    Does nothing unless root runs it. Root may restore a file that the registry reads as another user.
    """
    if os.geteuid() != 0:
        return
    owner = (path if path.exists() else path.parent).stat()
    for file in files:
        os.chown(file, owner.st_uid, owner.st_gid)


def _copy(path: Path, to: Path) -> None:
    """Copies a database, its write-ahead log included. Raises `StoreOpenFailed` and `OSError`."""
    if not path.is_file():
        raise StoreOpenFailed(f"there is no file {path}")
    os.close(os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            application = source.execute("PRAGMA application_id").fetchone()[0]
            if application != schema.APPLICATION_ID:
                raise StoreOpenFailed(f"{path} is not a file of an Adsum registry")
            source.backup(target)
            _disable_wal(target)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreOpenFailed(f"can't copy {path}: {error}") from error


def _disable_wal(copy: sqlite3.Connection) -> None:
    """Makes a copy a single file, so that it can be read in a folder where no file can be created."""
    copy.execute("PRAGMA journal_mode = DELETE")


def _verified(copy: Path, original: Path, *, new_epoch: bool = False) -> BackupSummary:
    """Reads all of a copy. Raises `StoreOpenFailed` with the path of the original if the copy is damaged."""
    file = SqliteFile(copy, new_epoch=new_epoch)
    try:
        file.open()
        state = file.full_state()
    except StoreOpenFailed as refused:
        raise StoreOpenFailed(str(refused).replace(str(file.path), str(original))) from refused
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreOpenFailed(f"can't read {original}: {error}") from error
    finally:
        file.close()
        for ending in (".lock", "-wal", "-shm"):
            _remove(copy.with_name(copy.name + ending))
    kinds = Counter(document.key.kind for _, document in state.documents)
    intent, access = (sum(kinds[kind] for kind in group) for group in (INTENT_KINDS, ACCESS_KINDS))
    return BackupSummary(len([*state.listings]), intent, access, state.revision)


def _replace(path: Path, new: Path) -> Path | None:
    """Replaces a database with `new`. Returns the path where the replaced file is kept; None if there was none."""
    kept = path.with_name(f"{path.name}.before-restore")
    for ending in ("", "-wal", "-shm"):
        _remove(kept.with_name(kept.name + ending))
    # The log is moved first: after a crash it must not lie beside the new file.
    with suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").replace(kept.with_name(f"{kept.name}-wal"))
    _remove(path.with_name(f"{path.name}-shm"))
    with suppress(FileNotFoundError):
        os.link(path, kept)
    new.replace(path)
    return kept if kept.exists() else None


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
