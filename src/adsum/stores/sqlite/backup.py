"""Copies a registry's SQLite file while it is in use, and puts such a copy back in its place. Blocking."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite import schema
from adsum.stores.sqlite.file import SqliteFile
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What a copy holds. `kept`: where `restore` put the file that was there before; None if there was none."""

    instances: int
    documents: int
    revision: int
    replaced_file: Path | None = None


def back_up(path: Path, target: Path) -> BackupSummary:
    """Copy the registry's file at `path` to a new file `to`; a daemon may use it meanwhile.

    Raises `StoreOpenFailed` if there is no such file, if `to` exists, or if either can't be read or written.
    """
    if target.exists():
        raise StoreOpenFailed(f"{target} exists: name a new file, or move that one away")
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        _copy(path, part)
        copied = _verified(part, path)
        with closing(sqlite3.connect(part)) as copy:
            _leave_log(copy)  # Reading all of it began a log.
        os.link(part, target)  # Unlike a rename, this never replaces what somebody has put there meanwhile.
        _sync_folder(target.parent)
    except OSError as error:
        raise StoreOpenFailed(f"can't write {target}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StoreOpenFailed(f"can't write {target}: {error}") from error
    finally:
        _remove(part)
    return copied


def restore(backup: Path, path: Path) -> BackupSummary:
    """Put a copy of `backup` in place of the registry's file at `path`, beginning a new epoch.

    What was there is kept beside it, as `PATH.before-restore`, until the next restore. Raises `StoreOpenFailed` while a
    daemon uses `path`, and if `backup` is no whole registry file; then nothing has changed.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(path)
        try:
            _take(lock, path)
            _copy(backup, part)
            copied = _verified(part, backup, new_epoch=True)
            _give(path, part, lock.path)
            kept = _replace(path, part)
            lock.save(DatabaseProgress("", 0, 0, 0), durable=True)  # Whatever the next start finds is new to it.
            _sync_folder(path.parent)
        finally:
            lock.release()
    except OSError as error:
        raise StoreOpenFailed(f"can't write {path}: {error.strerror}") from error
    finally:
        _remove(part)
    return BackupSummary(copied.instances, copied.documents, copied.revision, kept)


def _take(lock: FileLock, path: Path) -> None:
    """Take the lock of a database. Raises `StoreOpenFailed`, in the name of the database, and `OSError`."""
    try:
        lock.acquire()
    except StoreOpenFailed as refused:
        raise StoreOpenFailed(f"{path}: {refused}") from None


def _give(path: Path, *files: Path) -> None:
    """Give files to the owner of a database, or of its folder if there is none yet.

    Root may restore, and the registry that reads the files is another user.
    """
    if os.geteuid() != 0:
        return
    owner = (path if path.exists() else path.parent).stat()
    for file in files:
        os.chown(file, owner.st_uid, owner.st_gid)


def _copy(path: Path, to: Path) -> None:
    """Copy a database with what stands in its log. Raises `StoreOpenFailed` and `OSError`."""
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
                raise StoreOpenFailed(f"{path} is no registry's file")
            source.backup(target)
            _leave_log(target)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreOpenFailed(f"can't copy {path}: {error}") from error


def _leave_log(copy: sqlite3.Connection) -> None:
    """Have a copy be one file, which can be read where no other file can be made beside it."""
    copy.execute("PRAGMA journal_mode = DELETE")


def _verified(copy: Path, original: Path, *, new_epoch: bool = False) -> BackupSummary:
    """Read all of a copy. Raises `StoreOpenFailed`, in the name of the original, if it is damaged."""
    file = SqliteFile(copy, new_epoch=new_epoch)
    try:
        file.open()
        whole = file.full_state()
    except StoreOpenFailed as refused:
        raise StoreOpenFailed(str(refused).replace(str(file.path), str(original))) from refused
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreOpenFailed(f"can't read {original}: {error}") from error
    finally:
        file.close()
        for ending in (".lock", "-wal", "-shm"):
            _remove(copy.with_name(copy.name + ending))
    return BackupSummary(len([*whole.listings]), len([*whole.documents]), whole.revision)


def _replace(path: Path, new: Path) -> Path | None:
    """Put `new` in the place of a database, and keep what was there; where that is."""
    kept = path.with_name(f"{path.name}.before-restore")
    for ending in ("", "-wal", "-shm"):
        _remove(kept.with_name(kept.name + ending))
    # The log first: no crash may leave it beside the new file.
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


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
