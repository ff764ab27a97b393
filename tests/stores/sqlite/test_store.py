"""The SQLite store beyond the contract: one daemon for each file, and files that can't be used or written."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import resource
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import pytest

from adsum import stores
from adsum.core.catalog.changes import MAX_HISTORY_PER_SERVICE, Change
from adsum.core.errors import Invalid, StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.core.model import Key
from adsum.core.provenance import Cause, Provenance
from adsum.stores.sqlite import SqliteStore, rows, schema, write_ahead_log
from adsum.stores.sqlite.backup import back_up
from adsum.stores.sqlite.file import SqliteFile
from adsum.stores.sqlite.history_table import TRIM_SLACK_CHANGES
from adsum.stores.sqlite.journal import Journal, JournalRow
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock
from tests.compatibility.archive import SQLITE
from tests.stores.support import change, current_listings, current_snapshot, open_follower, put_route


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adsum.db"


@asynccontextmanager
async def opened(path: Path, options: str = "") -> AsyncIterator[SqliteStore]:
    store = SqliteStore.from_url(f"sqlite:///{path}{options}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def refusal(path: Path) -> str:
    """Returns the error of opening the store."""
    with pytest.raises(StoreOpenFailed) as refused:
        async with opened(path):
            pass
    return str(refused.value)


def edit(path: Path, *statements: str) -> None:
    """Executes statements as SQLite's own tools do."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def replace(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def overwrite(path: Path, start: int, content: bytes) -> None:
    """Overwrites the file from `start` on. Creates it if it does not exist."""
    path.touch()
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


async def create_store(path: Path) -> None:
    """Creates a store with one instance."""
    async with opened(path) as store:
        await store.commit([change("o1")], 0)


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Makes writes fail as on a full disk: no file of this process may grow past the store's largest file.

    If `path` is that of the write-ahead log, no file may grow past the log.
    """
    files = [path] if path.name.endswith("-wal") else path.parent.iterdir()
    size = max(file.stat().st_size for file in files)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://localhost", "one of memory:, etcd:, sqlite:, not"),
        ("adsum.db", "one of memory:, etcd:, sqlite:, not"),
        ("", "one of memory:, etcd:, sqlite:, not"),
        ("memory:x", "must be exactly memory:"),
        ("sqlite:", "must be sqlite:///PATH"),
        ("sqlite:///", "must be sqlite:///PATH"),
        ("sqlite://host/adsum.db", "must be sqlite:///PATH"),
        ("sqlite:/adsum.db", "must be sqlite:///PATH"),
        ("sqlite:///a%00b", "must be sqlite:///PATH"),
        ("sqlite:///a.db?epoch=old", "accepts only the option"),
        ("sqlite:///a.db?epoch=new&epoch=new", "accepts only the option"),
        ("sqlite:///a.db?timeout=3", "accepts only the option"),
    ],
)
def test_a_wrong_url_is_refused_with_the_right_form(url: str, expected: str) -> None:
    with pytest.raises(Invalid, match=expected) as refused:
        stores.store(url)
    assert refused.value.field == "store"


async def test_a_path_may_be_relative_and_hold_quoted_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = stores.store("sqlite:///new%20folder/what%3F.db")
    await store.open()
    await store.close()
    assert (tmp_path / "new folder" / "what?.db").exists()


async def test_the_files_are_readable_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "adsum.db"
    async with opened(path) as store:
        await store.commit([change("o1")], 0)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(list(path.parent.iterdir())) == 4
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


async def test_a_second_store_of_a_file_is_refused_while_the_first_is_open(path: Path) -> None:
    async with opened(path) as store:
        error = await refusal(path)
        assert f"{path}: another registry uses it (process {os.getpid()}): stop that registry" in error
        await store.commit([change("o1")], 0)
    async with opened(path) as store:
        assert (await current_snapshot(store)).revision == 1


async def test_two_names_of_one_file_have_one_lock(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "other.db"
    link.symlink_to(path)
    async with opened(path):
        assert "another registry uses it" in await refusal(link)


async def test_a_store_that_fails_to_open_releases_the_file(path: Path) -> None:
    overwrite(path, 0, b"not a database, though long enough to be looked at as if it were one" * 20)
    await refusal(path)
    os.unlink(path)  # noqa: PTH108
    await create_store(path)


async def test_a_file_of_a_later_version_is_refused_and_not_changed(path: Path) -> None:
    await create_store(path)
    edit(path, f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    before = contents(path)
    assert "a later version of Adsum wrote it" in await refusal(path)
    assert contents(path) == before


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE theirs (x)"],
        ["PRAGMA user_version = 1"],
        ["PRAGMA application_id = 42"],
        ["CREATE TABLE theirs (x)", "PRAGMA application_id = 42", "PRAGMA user_version = 1"],
    ],
)
async def test_the_file_of_another_program_is_refused_and_not_changed(path: Path, statements: list[str]) -> None:
    edit(path, *statements)
    before = contents(path)
    assert "another program's SQLite file" in await refusal(path)
    assert contents(path) == before


async def test_a_file_that_is_no_database_is_refused_with_the_remedy(path: Path) -> None:
    overwrite(path, 0, os.urandom(10_000))
    error = await refusal(path)
    assert "file is not a database" in error
    assert "restore it from a backup (`adsum restore`), or move it away" in error


async def test_a_damaged_file_is_refused_and_not_read_in_part(path: Path) -> None:
    async with opened(path) as store:
        for n in range(20):
            await store.commit([change(f"o{n * 50 + more}") for more in range(50)], n)
    overwrite(path, 8192, b"\xa5" * (len(contents(path)) - 8192))
    with pytest.raises(StoreOpenFailed, match="restore it from a backup"):
        async with opened(path) as store:
            await current_snapshot(store)


async def test_a_record_that_cannot_be_read_is_named(path: Path) -> None:
    await create_store(path)
    edit(path, "UPDATE listings SET body = x'7b7d'")
    async with opened(path) as store:
        with pytest.raises(StoreOpenFailed, match="its record of orders/o1 can't be read"):
            await current_snapshot(store)


@pytest.mark.parametrize("body", ["x'7b7d'", "x'ff'", "''", "1"])
async def test_a_damaged_history_is_named_and_affects_nothing_else(path: Path, body: str) -> None:
    await create_store(path)
    edit(path, f"UPDATE history SET body = {body}")
    async with opened(path) as store:
        with pytest.raises(StoreUnavailable, match="its history of orders/o1 at revision 1 can't be read"):
            await store.history(None, None, 9)
        assert await store.history("users", None, 9) == []
        assert await store.commit([change("o2")], 1) == 2
        assert len(current_listings(await current_snapshot(store))) == 2


@pytest.mark.parametrize("size", [50, 512, 4_096, 20_000, -4_096])
async def test_a_file_that_was_cut_off_is_refused(path: Path, size: int) -> None:
    async with opened(path) as store:
        await store.commit([change(f"o{n}") for n in range(200)], 0)
    replace(path, contents(path)[:size])
    with pytest.raises(StoreOpenFailed, match="restore it from a backup"):
        async with opened(path) as store:
            await current_snapshot(store)


def damaged(intact: bytes, rng: random.Random) -> bytes:
    """Returns the content with some bytes overwritten."""
    size = rng.choice([1, 16, 512, 4_096])
    at = rng.randrange(len(intact) - size)
    return intact[:at] + rng.randbytes(size) + intact[at + size :]


async def test_a_damaged_file_is_read_refused_or_unavailable(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([change(f"o{n}") for n in range(200)], 0)
    intact, rng = contents(path), random.Random(7)
    for _ in range(40):
        replace(path, damaged(intact, rng))
        with suppress(StoreOpenFailed, StoreUnavailable):
            async with opened(path) as store:
                await current_snapshot(store)
                await store.history(None, None, 999)


async def test_a_file_without_its_epoch_is_refused(path: Path) -> None:
    await create_store(path)
    edit(path, "DELETE FROM meta")
    assert "restore it from a backup" in await refusal(path)


async def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert f"{in_the_way}: File exists" in await refusal(in_the_way / "adsum.db")
    assert "Not a directory" in await refusal(in_the_way / "deeper" / "adsum.db")
    assert "Is a directory" in await refusal(tmp_path)
    assert "can't use /proc/adsum/adsum.db: " in await refusal(Path("/proc/adsum/adsum.db"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
async def test_a_file_without_write_permission_is_refused(path: Path) -> None:
    path.parent.chmod(0o500)
    assert "Permission denied" in await refusal(path)


async def test_a_file_on_a_full_disk_is_refused_and_created_later(path: Path) -> None:
    overwrite(path, 0, b"")
    with full_disk(path):
        assert "can't use" in await refusal(path)
    await create_store(path)


async def test_an_older_file_is_migrated_with_all_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await create_store(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE more (x)",)))
    async with opened(path) as store:
        assert await store.commit([change("o2")], 1) == 2
        assert {key.id for key in current_listings(await current_snapshot(store))} == {"o1", "o2"}
    edit(path, "INSERT INTO more VALUES (1)")
    monkeypatch.undo()
    latest = len(schema.MIGRATIONS)
    assert f"its schema is {latest + 1}, the latest known here {latest}" in await refusal(path)


async def test_a_file_of_the_first_version_can_hold_documents(path: Path) -> None:
    edit(path, *schema.MIGRATIONS[0], "PRAGMA user_version = 1")
    async with opened(path) as store:
        await store.commit([change("o1")], 0, [put_route("r1")])
        snapshot = await current_snapshot(store)
        assert (len(current_listings(snapshot)), len(snapshot.documents)) == (1, 1)


async def test_a_file_of_the_second_version_knows_the_services_in_its_history(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([change("o1")], 0)
        await store.commit([change("o1", None)], 1)
    bare = [
        f"ALTER TABLE {table} DROP COLUMN checksum"
        for table in schema.CHECKSUM_COLUMNS
        if table not in ("departures", "edits", "journal")
    ]
    edit(
        path,
        "ALTER TABLE meta DROP COLUMN copy",
        "DROP TABLE journal",
        "DROP TABLE edits",
        "DROP TABLE departures",
        *bare,
        "PRAGMA user_version = 2",
    )
    async with opened(path) as store:
        assert set((await current_snapshot(store)).services) == {"orders"}


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await create_store(path)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("DELETE FROM listings", "CREATE nonsense")))
        assert "nonsense" in await refusal(path)
    async with opened(path) as store:
        assert len(current_listings(await current_snapshot(store))) == 1


async def test_a_new_epoch_begins_on_request_and_keeps_everything_else(path: Path) -> None:
    await create_store(path)
    async with opened(path) as store:
        before = await current_snapshot(store)
    async with opened(path, "?epoch=new") as store:
        after = await current_snapshot(store)
    assert after.epoch != before.epoch
    assert len(after.epoch) == 32
    assert (after.revision, current_listings(after)) == (before.revision, current_listings(before))
    async with opened(path) as store:
        assert (await current_snapshot(store)).epoch == after.epoch


async def test_commits_that_wait_are_written_in_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transactions = []
    write = SqliteFile._write

    def counting(self: SqliteFile, rows: Sequence[JournalRow]) -> None:
        transactions.append(len(rows))
        write(self, rows)

    monkeypatch.setattr(SqliteFile, "_write", counting)
    async with opened(path) as store:
        await asyncio.gather(*(store.commit([change("o1", n + 1)], n) for n in range(100)))
        assert len(transactions) < 30
        assert [recorded.revision for recorded in await store.history(None, None, 200)] == list(range(100, 0, -1))


async def test_history_is_trimmed_even_if_the_daemon_restarts_often(path: Path) -> None:
    many, revision = TRIM_SLACK_CHANGES // 2, 0
    for _ in range((MAX_HISTORY_PER_SERVICE + 5 * TRIM_SLACK_CHANGES) // many):
        async with opened(path) as store:
            revision = await store.commit([change("o1", 1 + n) for n in range(many)], revision)
    async with opened(path) as store:
        assert (
            len(await store.history(None, None, 10 * MAX_HISTORY_PER_SERVICE))
            < MAX_HISTORY_PER_SERVICE + 2 * TRIM_SLACK_CHANGES
        )


async def test_a_batch_that_cannot_be_encoded_does_not_affect_others(path: Path) -> None:
    bad = Change(Key("orders", "o1"), None, Provenance(Cause.DEREGISTERED, "\ud800"))
    async with opened(path) as store:
        results = await asyncio.gather(
            store.commit([change("o1")], 0),
            store.commit([change("o2"), bad], 1),
            store.commit([change("o3")], 1),
            return_exceptions=True,
        )
        assert results[0] == 1
        assert isinstance(results[1], UnicodeEncodeError)
        assert results[2] == 2
        assert {key.id for key in current_listings(await current_snapshot(store))} == {"o1", "o3"}
        assert {recorded.key.id for recorded in await store.history(None, None, 9)} == {"o1", "o3"}


def large_batch(n: int) -> list[Change]:
    """Returns a batch of some hundred kilobytes, of which some 30 remain when it is compressed."""
    rng = random.Random(n)
    return [change(f"o{n}-{more}-{rng.randbytes(55).hex()}") for more in range(500)]


async def test_a_full_disk_refuses_commits_and_loses_nothing(path: Path) -> None:
    async with opened(path) as store, open_follower(store) as follower:
        await store.commit([change("o1")], 0)
        await follower.reach(1)
        with full_disk(path):
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match=f"{path}: "):
                    await store.commit(large_batch(0), 1)
            assert set(current_listings(await current_snapshot(store))) == {Key("orders", "o1")}
            assert len(await store.history(None, None, 9)) == 1
        assert await store.commit(large_batch(1), 1) == 2
        assert len(current_listings(await follower.reach(2))) == 501
        assert follower.full_states == 1, "nothing was written, so no follower starts over"
    async with opened(path) as store:
        assert current_listings(await current_snapshot(store)) == current_listings(follower.snapshot)


async def test_a_file_at_its_size_limit_refuses_commits_until_there_is_room(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([change("o1")], 0)
        await limit_pages(store, 1)
        with pytest.raises(StoreUnavailable, match="full"):
            await store.commit(large_batch(0), 1)
        await limit_pages(store, 1_000_000)
        assert await store.commit(large_batch(0), 1) == 2
        assert len(current_listings(await current_snapshot(store))) == 501


async def query(store: SqliteStore, statement: str) -> object:
    """Returns the answer of the store's own connection."""
    answer = await store._run(lambda: store._file._db.execute(statement).fetchone())
    return answer[0] if answer else None


async def test_every_commit_is_synced_into_a_write_ahead_log(path: Path) -> None:
    async with opened(path) as store:
        assert await query(store, "PRAGMA journal_mode") == "wal"
        assert await query(store, "PRAGMA synchronous") == 2


async def test_a_file_that_cannot_be_read_now_is_unavailable_not_refused(path: Path) -> None:
    await create_store(path)
    async with opened(path) as store:
        store._file._db.set_progress_handler(lambda: 1, 1)
        with pytest.raises(StoreUnavailable, match="interrupted"):
            await current_snapshot(store)
        with pytest.raises(StoreUnavailable, match="interrupted"):
            await store.commit([change("o2")], 1)
        store._file._db.set_progress_handler(None, 1)
        assert await store.commit([change("o2")], 1) == 2
        assert len(current_listings(await current_snapshot(store))) == 2


async def limit_pages(store: SqliteStore, pages: int) -> None:
    """Limits the file to `pages` pages, or to its present size if that is larger."""
    await query(store, f"PRAGMA max_page_count = {pages}")


async def test_a_file_locked_by_another_program_refuses_commits_until_it_is_unlocked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path) as store:
        await query(store, "PRAGMA busy_timeout = 10")
        with closing(sqlite3.connect(path, isolation_level=None)) as tool:
            tool.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.commit([change("o1")], 0)
            tool.execute("ROLLBACK")
        assert await store.commit([change("o1")], 0) == 1


@contextmanager
def failing_after_commit(monkeypatch: pytest.MonkeyPatch, *, blind: bool) -> Iterator[None]:
    """Makes commits succeed but raise an error. `blind`: the file can't be read afterwards either."""
    append = Journal.append

    def append_and_fail(self: Journal, rows: Sequence[JournalRow]) -> bool:
        append(self, rows)
        raise sqlite3.OperationalError("disk I/O error")

    def failing(self: SqliteFile) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append_and_fail)
        if blind:
            patch.setattr(SqliteFile, "_load_revision", failing)
        yield


@pytest.mark.parametrize("blind", [False, True])
async def test_a_failed_commit_is_published_if_it_is_in_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    async with opened(path) as store, open_follower(store) as follower:
        await follower.next()
        with failing_after_commit(monkeypatch, blind=blind), pytest.raises(StoreUnavailable, match="disk I/O error"):
            await store.commit([change("o1")], 0)
        with pytest.raises(StoreConflict):
            await store.commit([change("o2")], 0)
        assert set(current_listings(await follower.reach(1))) == {Key("orders", "o1")}
        assert follower.full_states == 2
        assert await store.commit([change("o2")], 1) == 2
        assert len(current_listings(await follower.reach(2))) == 2


def copy_as_if_killed(path: Path, copy: Path) -> None:
    """Copies the files that a daemon would leave if it were killed now."""
    copy.parent.mkdir()
    for ending in ("", "-wal", ".lock"):
        copy.with_name(copy.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())


def copy_with_sqlite(path: Path, to: Path) -> None:
    """Makes a backup as `sqlite3 adsum.db ".backup copy.db"` does."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


@pytest.fixture
async def crashed(path: Path, tmp_path: Path) -> Path:
    """A file whose log has one instance more than `backup.db` beside it."""
    crashed = tmp_path / "crashed" / "adsum.db"
    async with opened(path) as store:
        await store.commit([change("o1")], 0)
        copy_with_sqlite(path, tmp_path / "backup.db")
        await store.commit([change("o2")], 1)
        copy_as_if_killed(path, crashed)
    return crashed


async def test_the_log_of_a_killed_daemon_is_read(crashed: Path) -> None:
    async with opened(crashed) as store:
        assert {key.id for key in current_listings(await current_snapshot(store))} == {"o1", "o2"}


@pytest.mark.parametrize("options", ["", "?epoch=new"])
async def test_a_backup_copied_beside_the_log_of_another_file_is_refused_and_not_changed(
    crashed: Path, tmp_path: Path, options: str
) -> None:
    saved = contents(tmp_path / "backup.db")
    replace(crashed, saved)
    with pytest.raises(StoreOpenFailed, match="belongs to the replaced file"):
        async with opened(crashed, options):
            pass
    assert contents(crashed) == saved
    for ending in ("-wal", "-shm"):
        crashed.with_name(crashed.name + ending).unlink(missing_ok=True)
    async with opened(crashed) as store:
        assert {key.id for key in current_listings(await current_snapshot(store))} == {"o1"}


@pytest.mark.parametrize("further_commits", [0, 1])
async def test_a_backup_beside_a_log_that_was_copied_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further_commits: int
) -> None:
    monkeypatch.setattr(write_ahead_log, "MAX_WAL_BYTES_UNDER_LOAD", 8_000)  # Each commit is copied.
    crashed = tmp_path / "crashed" / "adsum.db"
    async with opened(path) as store:
        await store.commit([change("o1")], 0)
        await store.history(None, None, 1)
        back_up(path, tmp_path / "backup.db")
        for n in range(further_commits):
            await store.commit([change("o2")], 1 + n)
            await store.history(None, None, 1)
        copy_as_if_killed(path, crashed)
    assert contents(crashed.with_name("adsum.db-wal")), "SQLite would apply this log"
    replace(crashed, contents(tmp_path / "backup.db"))
    assert "belongs to the replaced file" in await refusal(crashed)


def prepare_crashed_file_of_schema_5(path: Path) -> None:
    """Makes the file that Adsum 0.2.0 leaves if it is killed: the last revision is only in the log."""
    writing = path.with_name("writing.db")
    writing.write_bytes(gzip.decompress((SQLITE / "0.2.0.db.gz").read_bytes()))
    with closing(sqlite3.connect(writing, isolation_level=None)) as db:
        db.create_function("checksum", -1, rows.checksum, deterministic=True)
        db.execute("PRAGMA journal_mode = WAL")
        epoch, revision = db.execute("SELECT epoch, revision FROM meta").fetchone()
        db.execute("UPDATE meta SET revision = revision + 1, checksum = checksum(epoch, revision + 1)")
        for ending in ("", "-wal"):
            path.with_name(path.name + ending).write_bytes(writing.with_name(writing.name + ending).read_bytes())
    progress = f"{epoch} {revision + 1} {revision} {revision}"
    path.with_name(path.name + ".lock").write_text(f"1\n{progress}\n".ljust(256))


async def test_a_file_that_a_killed_registry_of_an_earlier_version_left_is_migrated(path: Path) -> None:
    prepare_crashed_file_of_schema_5(path)
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as main:
        epoch, revision = main.execute("SELECT epoch, revision FROM meta").fetchone()
    async with opened(path) as store:
        snapshot = await current_snapshot(store)
        assert (snapshot.epoch, snapshot.revision) == (epoch, revision + 1)


async def test_a_file_beside_the_log_of_an_earlier_version_is_refused_and_not_changed(path: Path) -> None:
    prepare_crashed_file_of_schema_5(path)
    with closing(sqlite3.connect(path.with_name("other.db"), isolation_level=None)) as other:
        for statement in (*schema.MIGRATIONS[0], "PRAGMA user_version = 1"):
            other.execute(statement)
    replace(path, contents(path.with_name("other.db")))
    before = contents(path)
    assert "belongs to the replaced file" in await refusal(path)
    assert contents(path) == before


async def test_a_crash_while_the_log_is_copied_is_not_taken_for_a_replaced_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed = tmp_path / "crashed" / "adsum.db"
    save = FileLock.save

    def save_before_a_copy(self: FileLock, progress: DatabaseProgress, *, durable: bool = False) -> None:
        if durable:
            save(self, progress, durable=True)

    async with opened(path) as store:
        # The log is copied, and the daemon dies before it saves the progress of the file.
        monkeypatch.setattr(FileLock, "save", save_before_a_copy)
        monkeypatch.setattr(write_ahead_log, "MAX_WAL_BYTES_UNDER_LOAD", 0)
        await store.commit([change("o1")], 0)
        await store.history(None, None, 1)
        copy_as_if_killed(path, crashed)
    monkeypatch.undo()
    with closing(sqlite3.connect(f"file:{crashed}?immutable=1", uri=True)) as main:
        assert main.execute("SELECT revision FROM journal").fetchone() == (1,), "the log was copied"
    async with opened(crashed) as store:
        assert {key.id for key in current_listings(await current_snapshot(store))} == {"o1"}


async def test_a_restored_file_gets_a_new_epoch(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await create_store(path)
    old = contents(path)
    async with opened(path) as store:
        before = await current_snapshot(store)
        await store.commit([change("o2")], 1)
    replace(path, old)
    async with opened(path) as store:
        after = await current_snapshot(store)
        await store.commit([change("o3")], 1)
    assert after.epoch != before.epoch
    assert "was restored from a copy" in caplog.text
    replace(path, old)
    async with opened(path) as store:
        assert (await current_snapshot(store)).epoch not in (before.epoch, after.epoch)


async def test_a_file_with_newer_revisions_keeps_its_epoch(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await create_store(path)
    async with opened(path) as store:
        before = await current_snapshot(store)
    path.with_name("adsum.db.lock").unlink()
    async with opened(path) as store:
        assert (await current_snapshot(store)).epoch == before.epoch
    assert not caplog.text


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "it was removed"),
        (lambda path: (path.rename(path.with_name("old.db")), path.touch()), "it was replaced"),
        (lambda path: path.with_name("adsum.db.lock").unlink(), "adsum.db.lock was removed"),
    ],
)
async def test_a_file_that_was_moved_accepts_no_write(
    path: Path, damage: Callable[[Path], object], expected: str
) -> None:
    async with opened(path) as store:
        await store.commit([change("o1")], 0)
        damage(path)
        with pytest.raises(StoreUnavailable, match=expected):
            await store.commit([change("o2")], 1)
        assert expected in store.condition()["trouble"]
        assert set(current_listings(await current_snapshot(store))) == {Key("orders", "o1")}


class TickingClock:
    """A clock whose sleepers wake when the test advances it."""

    def __init__(self) -> None:
        self.time = 0.0
        self._turn = asyncio.Event()
        self.asleep = asyncio.Event()

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, length: float) -> None:
        self.asleep.set()
        await self._turn.wait()
        self._turn.clear()

    async def tick(self, length: float) -> None:
        """Advances the clock, and returns when the sleeper that woke sleeps again."""
        await self.asleep.wait()
        self.asleep.clear()
        self.time += length
        self._turn.set()
        await self.asleep.wait()


async def test_a_disk_that_cannot_be_written_and_its_recovery_are_noticed(path: Path) -> None:
    clock = TickingClock()
    store = SqliteStore(path, clock=clock)
    await store.open()
    await store.commit([change("o1")], 0)
    with full_disk(path.with_name("adsum.db-wal")):
        with pytest.raises(StoreUnavailable):
            await store.commit(large_batch(0), 1)
        await clock.tick(20.0)
        assert store.isolated_seconds() == 20.0
        assert str(path) in store.condition()["trouble"]
    await clock.tick(2.0)
    assert (store.isolated_seconds(), store.condition()) == (0.0, {})
    await store.close()


async def test_a_check_just_before_a_commit_gives_followers_no_new_full_state(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, has_begun, may_end = TickingClock(), threading.Event(), threading.Event()
    check = SqliteFile.check_writable

    def slow_check(self: SqliteFile, *, write: bool) -> None:
        has_begun.set()
        assert may_end.wait(20.0)
        check(self, write=write)

    monkeypatch.setattr(SqliteFile, "check_writable", slow_check)
    store = SqliteStore(path, clock=clock)
    await store.open()
    async with open_follower(store) as follower:
        await follower.next()
        checked = asyncio.create_task(clock.tick(2.0))
        assert await asyncio.to_thread(has_begun.wait, 20.0)
        committed = asyncio.create_task(store.commit([change("o1")], 0))
        await asyncio.sleep(0)
        may_end.set()
        with closing(sqlite3.connect(path)) as reader:
            while reader.execute("SELECT count(*) FROM journal").fetchone() != (1,):
                pass  # Both are done before the event loop hears of either.
        await asyncio.gather(committed, checked)
        await store.commit([change("o2")], 1)
        await follower.reach(2)
        assert follower.full_states == 1
    await store.close()


def remove(path: Path) -> None:
    path.unlink()


async def test_a_removed_file_is_noticed_without_a_write(path: Path) -> None:
    clock = TickingClock()
    store = SqliteStore(path, clock=clock)
    await store.open()
    remove(path)
    await clock.tick(2.0)
    await clock.tick(3.0)
    assert store.isolated_seconds() == 3.0
    await store.close()


async def test_changes_of_another_program_are_read_before_the_next_write(path: Path) -> None:
    async with opened(path) as store, open_follower(store) as follower:
        await store.commit([change("o1")], 0)
        await follower.reach(1)
        path.with_name("adsum.db.lock").rename(path.with_name("other.lock"))  # As if there had never been one.
        async with opened(path) as other:
            await other.commit([change("o2")], 1)
        path.with_name("adsum.db.lock").unlink()
        path.with_name("other.lock").rename(path.with_name("adsum.db.lock"))
        with pytest.raises(StoreUnavailable, match="another program wrote"):
            await store.commit([change("o3")], 1)
        assert {key.id for key in current_listings(await follower.reach(2))} == {"o1", "o2"}
        assert await store.commit([change("o3")], 2) == 3


async def test_a_flipped_bit_never_changes_a_listing(path: Path) -> None:
    async with opened(path) as store:
        await store.commit([change(f"o{n}") for n in range(20)], 0, [put_route("r1")])
        await store.commit([change("o1", None)], 1)
        right = await current_snapshot(store)
        history = await store.history(None, None, 999)
    intact, rng, same = contents(path), random.Random(11), 0
    for _ in range(300):
        at = rng.randrange(len(intact))
        flipped = intact[:at] + bytes([intact[at] ^ 1 << rng.randrange(8)]) + intact[at + 1 :]
        path.with_name("adsum.db.lock").unlink(missing_ok=True)
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        replace(path, flipped)
        with suppress(StoreOpenFailed, StoreUnavailable):
            async with opened(path) as store:
                found = await current_snapshot(store)
                assert (found.epoch, found.revision) == (right.epoch, right.revision)
                assert current_listings(found) == current_listings(right)
                assert found.documents.by_kind == right.documents.by_kind
                assert set(found.services) == set(right.services)
                assert await store.history(None, None, 999) == history
                same += 1
    assert same < 300


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET epoch = 5",
        "UPDATE meta SET revision = 7",
        "INSERT INTO meta VALUES ('x', 1, 2, 0)",
        "UPDATE listings SET body = replace(CAST(body AS TEXT), '127.0.0.1', '127.0.0.9')",
        "UPDATE departures SET revision = 9",
    ],
)
async def test_a_changed_value_is_refused_with_the_remedy(path: Path, damage: str) -> None:
    async with opened(path) as store:
        await store.commit([change("o1"), change("o2")], 0)
        await store.commit([change("o2", None)], 1)
    edit(path, damage)
    with pytest.raises(StoreOpenFailed, match="adsum restore"):
        async with opened(path) as store:
            await current_snapshot(store)


@pytest.fixture
def foreign_file(path: Path, tmp_path: Path) -> Path:
    """A file that is no database, with a link to it at `path`."""
    foreign_file = tmp_path / "elsewhere" / "foreign_file.txt"
    foreign_file.parent.mkdir()
    foreign_file.write_text("Dear reader, this is no database.")
    path.symlink_to(foreign_file)
    return foreign_file


async def test_no_lock_is_created_beside_the_target_of_a_link_to_another_file(path: Path, foreign_file: Path) -> None:
    assert "file is not a database" in await refusal(path)
    assert [file.name for file in foreign_file.parent.iterdir()] == ["foreign_file.txt"]


async def test_a_long_log_is_emptied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_ahead_log, "MAX_WAL_BYTES_UNDER_LOAD", 100_000)
    async with opened(path) as store:
        longest = 0
        for n in range(40):
            await store.commit(large_batch(n)[:50], n)
            longest = max(longest, path.with_name("adsum.db-wal").stat().st_size)
        assert longest < 500_000
        copy_as_if_killed(path, path.parent / "crashed" / "adsum.db")
    async with opened(path.parent / "crashed" / "adsum.db") as store:
        assert len(current_listings(await current_snapshot(store))) == 40 * 50
