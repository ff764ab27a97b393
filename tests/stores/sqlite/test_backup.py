"""Backups of the SQLite file while it is in use, and restores."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite import SqliteStore
from adsum.stores.sqlite.backup import BackupSummary, back_up, restore
from adsum.stores.sqlite.file import MAX_REVISION
from tests.stores.support import change, current_listings, current_snapshot, put_route, put_token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry" / "adsum.db"


@pytest.fixture
async def store(path: Path) -> SqliteStore:
    """An open store with two instances and a route and a token, which are still in its write-ahead log."""
    store = SqliteStore(path)
    await store.open()
    await store.commit([change("o1"), change("o2")], 0, [put_route("r1"), put_token("t1")])
    return store


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


async def ids(path: Path) -> set[str]:
    store = SqliteStore(path)
    await store.open()
    try:
        return {key.id for key in current_listings(await current_snapshot(store))}
    finally:
        await store.close()


async def test_a_backup_of_a_store_in_use_includes_its_log(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    to = tmp_path / "backup.db"
    assert back_up(path, to) == BackupSummary(2, 1, 1, 1)
    assert names(tmp_path) == {"registry", "backup.db"}
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    await store.commit([change("o3")], 1)
    await store.close()
    assert await ids(to) == {"o1", "o2"}


async def test_a_restored_backup_is_listed_in_a_new_epoch(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    before = await current_snapshot(store)
    back_up(path, tmp_path / "backup.db")
    await store.commit([change("o3")], 1)
    await store.close()
    kept = path.with_name("adsum.db.before-restore")
    assert restore(tmp_path / "backup.db", path) == BackupSummary(2, 1, 1, 1, kept)
    assert names(path.parent) == {"adsum.db", "adsum.db.lock", "adsum.db.before-restore"}
    store = SqliteStore(path)
    await store.open()
    after = await current_snapshot(store)
    await store.close()
    assert after.epoch != before.epoch
    assert {key.id for key in current_listings(after)} == {"o1", "o2"}
    assert await ids(kept) == {"o1", "o2", "o3"}
    assert await ids(tmp_path / "backup.db") == {"o1", "o2"}, "the backup itself can be restored again"


async def test_a_restore_keeps_the_file_and_log_of_a_killed_registry(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    back_up(path, tmp_path / "backup.db")
    await store.commit([change("o3")], 1)
    crashed = tmp_path / "crashed" / "adsum.db"
    crashed.parent.mkdir()
    for ending in ("", "-wal", ".lock"):
        crashed.with_name(crashed.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())
    await store.close()
    kept = restore(tmp_path / "backup.db", crashed).replaced_file
    assert kept is not None
    assert await ids(crashed) == {"o1", "o2"}
    assert await ids(kept) == {"o1", "o2", "o3"}


async def test_a_file_in_use_is_not_replaced(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "backup.db")
    await store.commit([change("o3")], 1)
    with pytest.raises(StoreOpenFailed, match="another registry uses it"):
        restore(tmp_path / "backup.db", path)
    assert names(path.parent) == {"adsum.db", "adsum.db-wal", "adsum.db-shm", "adsum.db.lock"}
    await store.close()
    assert await ids(path) == {"o1", "o2", "o3"}


async def test_a_backup_can_be_restored_without_an_existing_file(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    back_up(path, tmp_path / "backup.db")
    await store.close()
    new = tmp_path / "new host" / "adsum.db"
    assert restore(tmp_path / "backup.db", new) == BackupSummary(2, 1, 1, 1)
    assert await ids(new) == {"o1", "o2"}


async def test_a_restored_backup_stays_one_file(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    back_up(path, folder / "backup.db")
    await store.close()
    restore(folder / "backup.db", path)
    assert names(folder) == {"backup.db"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_a_file_restored_by_root_belongs_to_the_registry(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    back_up(path, tmp_path / "backup.db")
    await store.close()
    os.chown(path, 12_345, 12_346)
    restore(tmp_path / "backup.db", path)
    folder = tmp_path / "new"
    folder.mkdir()
    os.chown(folder, 12_345, 12_346)
    restore(tmp_path / "backup.db", folder / "adsum.db")
    for name in ("adsum.db", "adsum.db.lock"):
        for file in (path.parent / name, folder / name):
            assert (file.stat().st_uid, file.stat().st_gid) == (12_345, 12_346), file


async def test_a_backup_never_replaces_a_file(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    to = tmp_path / "letter.txt"
    to.write_text("Dear reader")
    with pytest.raises(StoreOpenFailed, match="exists: name a new file"):
        back_up(path, to)
    assert to.read_text() == "Dear reader"
    await store.close()


async def test_a_crash_of_the_first_start_after_a_restore_is_not_taken_for_a_replaced_file(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    back_up(path, tmp_path / "backup.db")
    await store.close()
    restore(tmp_path / "backup.db", path)
    lock = path.with_name("adsum.db.lock")
    restored = lock.read_text()
    store = SqliteStore(path)
    await store.open()
    await store.commit([change("o3")], 1)
    crashed = tmp_path / "crashed" / "adsum.db"
    crashed.parent.mkdir()
    for ending in ("", "-wal"):
        crashed.with_name(crashed.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())
    # The content of the lock file while the file is opened for the first time.
    crashed.with_name("adsum.db.lock").write_text(restored.replace(" 0 0 0", f" 0 0 {MAX_REVISION}"))
    await store.close()
    assert await ids(crashed) == {"o1", "o2", "o3"}


def spoil_record(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE listings SET revision = 9 WHERE id = 'o1'")


def spoil_pages(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4_096])


def other_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE x (y)")


@pytest.mark.parametrize("spoil", [spoil_record, spoil_pages, other_program, Path.unlink])
async def test_a_damaged_backup_is_refused_and_nothing_changes(
    store: SqliteStore, path: Path, tmp_path: Path, spoil: object
) -> None:
    backup = tmp_path / "backup.db"
    back_up(path, backup)
    await store.commit([change("o3")], 1)
    await store.close()
    assert callable(spoil)
    spoil(backup)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.suffix != ".lock"}
    with pytest.raises(StoreOpenFailed, match=str(backup)):
        restore(backup, path)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir() if file.suffix != ".lock"} == before
    assert await ids(path) == {"o1", "o2", "o3"}


async def test_a_backup_is_consistent_while_the_registry_writes(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    async def write() -> None:
        for n in range(1, 60):
            await store.commit([change(f"a{n}"), change(f"b{n}")], n)

    writing = asyncio.create_task(write())
    loop, copies = asyncio.get_running_loop(), 0
    while not writing.done() or not copies:
        to = tmp_path / f"backup-{copies}.db"
        copied = await loop.run_in_executor(None, back_up, path, to)
        assert copied.instances == 2 * copied.revision
        copies += 1
    await writing
    await store.close()
