"""The journal: readers see it, it is folded into the tables, and a crash at any point of that loses nothing."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.core.catalog import documents
from adsum.core.catalog.changes import Change, RecordedChange
from adsum.core.catalog.documents import INTENT_KINDS, Edit
from adsum.core.errors import StoreOpenFailed, StoreUnavailable
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.stores.record_decoder import RecordDecoder, decode_change, decode_document
from adsum.stores.sqlite import SqliteStore, fold
from adsum.stores.sqlite.file import BatchWrite, SqliteFile
from adsum.stores.sqlite.fold import JournalFolding
from adsum.stores.sqlite.journal_entry import COMPRESS_FROM_BYTES, NULL, JournalEntry, decode_entry, encode_entry
from tests.stores.sqlite.small_bounds import use_small_bounds
from tests.stores.support import change, current_listings, current_snapshot, put_route, withdraw_route
from tests.support import strategies

changes = st.lists(strategies.simple_changes, max_size=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adsum.db"


@contextmanager
def opened(path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(path)
    file.open()
    try:
        yield file
    finally:
        file.close()


def count(path: Path, table: str) -> int:
    """Returns the number of rows of a table, as another program sees it."""
    with closing(sqlite3.connect(path)) as db:
        found: int = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return found


def edit(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


def fold_while_idle(file: SqliteFile) -> None:
    while file.maintain(idle=True):
        pass


@dataclass
class ExpectedContents:
    """The contents of a file at each revision."""

    batches: list[tuple[Sequence[Change], Sequence[Edit]]] = field(default_factory=list)

    def write(self, file: SqliteFile, changes: Sequence[Change], edits: Sequence[Edit] = ()) -> None:
        self.batches.append((changes, edits))
        assert file.write([BatchWrite(changes, len(self.batches) - 1, edits)]) == [len(self.batches)]

    def check(self, file: SqliteFile, revision: int | None = None) -> None:
        """Checks that the file has the contents of a revision, by default of the last."""
        revision = len(self.batches) if revision is None else revision
        listings, routes, removed = dict[Key, Any](), dict[str, Any](), dict[str, int]()
        history, edits = list[RecordedChange](), list[tuple[int, str]]()
        for number, (batch, edited) in enumerate(self.batches[:revision], 1):
            for one in batch:
                listings.pop(one.key, None)
                if one.listing is not None:
                    listings[one.key] = (number, one.listing)
                else:
                    removed[one.key.service] = number
                status = one.listing.status.value if one.listing is not None else ""
                history.insert(0, RecordedChange(number, one.key, status, one.provenance))
            for one_edit in edited:
                routes.pop(one_edit.key.name, None)
                if one_edit.document is not None:
                    routes[one_edit.key.name] = (number, one_edit.document)
                edits.insert(0, (number, one_edit.key.name))
        state = file.full_state()
        assert state.revision == revision
        assert {listing.key: (number, listing) for number, listing in state.listings} == listings
        assert {document.key.name: (number, document) for number, document in state.documents} == routes
        assert state.removal_revisions == removed
        assert file.history(None, None, 10_000) == history
        orders = [recorded for recorded in history if recorded.key.service == "orders"]
        assert file.history("orders", None, 3) == orders[:3]
        assert [(found.revision, found.key.name) for found in file.edits(INTENT_KINDS, None, 10_000)] == edits
        assert [found.revision for found in file.edits(INTENT_KINDS, "r1", 2)] == [
            number for number, name in edits if name == "r1"
        ][:2]


def batch(n: int) -> tuple[list[Change], list[Edit]]:
    """Returns the nth batch of a history with registrations, removals, and documents."""
    made = [change(f"o{n % 7}", 1 + n), change(f"u{n % 3}", 1 + n, f"users-{n % 4}")]
    if n % 5 == 4:
        made = [change(f"o{(n - 2) % 7}", None), *made[1:]]
    return made, [put_route(f"r{n % 3}", b'{"n":%d}' % n)] if n % 3 == 0 else [
        withdraw_route("r2")
    ] if n % 8 == 7 else []


@given(changes, st.integers(0, 3))
def test_an_entry_holds_the_records_of_its_batch(changes: list[Change], routes: int) -> None:
    edits = [put_route(f"r{n}", b'{"n":%d}' % n) for n in range(routes)]
    entry = decode_entry(encode_entry(changes, edits))
    for made, journaled in zip(changes, entry.changes, strict=True):
        assert (journaled.service, journaled.id) == made.key
        status = made.listing.status.value if made.listing is not None else ""
        recorded = decode_change(1, made.key, bytes(journaled.record))
        assert recorded == RecordedChange(1, made.key, status, made.provenance)
        if made.listing is None:
            assert bytes(journaled.listing) == NULL
        else:
            assert RecordDecoder().decode_listing(*made.key, bytes(journaled.listing)) == made.listing
    for one, journaled_edit in zip(edits, entry.edits, strict=True):
        assert decode_document(journaled_edit.kind, journaled_edit.name, bytes(journaled_edit.document)) == one.document


def test_a_large_entry_is_compressed() -> None:
    body = encode_entry([change(f"o{n}") for n in range(200)], [])
    assert len(body) < COMPRESS_FROM_BYTES < len(zlib.decompress(body))
    assert len(decode_entry(body).changes) == 200


@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_a_damaged_entry_is_refused_or_another_entry(garbage: bytes, at: int, large: bool) -> None:
    body = encode_entry([change(f"o{n}") for n in range(50 if large else 2)], [])
    for damaged in (garbage, body[:at] + garbage + body[at + len(garbage) :]):
        with suppress(ValueError, zlib.error):
            assert isinstance(decode_entry(damaged), JournalEntry)


def test_a_commit_is_in_the_journal_and_is_folded_when_the_file_is_closed(path: Path) -> None:
    expected = ExpectedContents()
    with opened(path) as file:
        for n in range(20):
            expected.write(file, *batch(n))
            assert not file.maintain(idle=True)
        assert (count(path, "journal"), count(path, "listings"), count(path, "history")) == (20, 0, 0)
        expected.check(file)
    assert (count(path, "journal"), count(path, "history")) == (0, 40)
    with opened(path) as file:
        expected.check(file)


def test_the_journal_is_folded_while_no_commit_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_bounds(monkeypatch.setattr)
    expected = ExpectedContents()
    with opened(path) as file:
        for n in range(3):
            expected.write(file, *batch(n))
            assert not file.maintain(idle=False), "a short journal stays"
        for n in range(3, 25):
            expected.write(file, *batch(n))
            file.maintain(idle=False)
        fold_while_idle(file)
        assert count(path, "journal") < fold.FOLD_FROM_FACTS
        assert count(path, "history") > 0
        expected.check(file)


def test_folding_keeps_up_with_commits_that_never_pause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_bounds(monkeypatch.setattr)
    monkeypatch.setattr(fold, "MAX_UNFOLDED_FACTS", 200)
    expected, longest = ExpectedContents(), 0
    with opened(path) as file:
        for n in range(150):
            expected.write(file, *batch(n))
            file.maintain(idle=False)
            longest = max(longest, count(path, "journal"))
        assert longest * 2 < 150
        expected.check(file)


def test_past_its_bound_a_commit_folds_the_journal_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "MAX_UNFOLDED_BYTES", 3_000)
    expected, longest = ExpectedContents(), 0
    with opened(path) as file:
        for n in range(60):
            expected.write(file, *batch(n))  # Without `maintain`.
            longest = max(longest, count(path, "journal"))
        assert longest < 15
        expected.check(file)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(changes, st.integers(0, 12)), min_size=1, max_size=8))
def test_readers_see_the_same_at_every_moment_of_a_fold(steps: list[tuple[list[Change], int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        use_small_bounds(patch.setattr)
        patch.setattr(fold, "FOLD_FROM_FACTS", 1)
        patch.setattr(fold, "MAX_SLICE_ROWS", 1)
        expected = ExpectedContents()
        with opened(Path(folder) / "adsum.db") as file:
            for number, (made, slices) in enumerate(steps):
                expected.write(file, made, [put_route("r1", b'{"n":%d}' % number)])
                for _ in range(slices):
                    file.maintain(idle=True)
                    expected.check(file)


class CrashingConnection(sqlite3.Connection):
    """A connection that calls `after_statement` after each statement."""

    after_statement: Callable[[], None] | None = None

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        cursor = super().execute(*arguments)
        self._pause()
        return cursor

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        cursor = super().executemany(*arguments)
        self._pause()
        return cursor

    def _pause(self) -> None:
        hook, CrashingConnection.after_statement = CrashingConnection.after_statement, None
        if hook is not None:
            hook()
        CrashingConnection.after_statement = hook


def copy_as_if_killed(path: Path, copy: Path) -> None:
    """Copies the files that a daemon would leave if it were killed now."""
    copy.parent.mkdir()
    for ending in ("", "-wal", ".lock"):
        with suppress(FileNotFoundError):
            copy.with_name(copy.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_after_any_statement_loses_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    use_small_bounds(monkeypatch.setattr)
    rng, expected, copies = random.Random(seed), ExpectedContents(), list[tuple[Path, int]]()
    acknowledged = 0

    def copy() -> None:
        if rng.random() < 0.08:
            copies.append((tmp_path / f"crash-{len(copies)}" / "adsum.db", acknowledged))
            copy_as_if_killed(path, copies[-1][0])

    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=CrashingConnection, **named))
        with opened(path) as file:
            patch.setattr(CrashingConnection, "after_statement", copy)
            for n in range(60):
                expected.write(file, *batch(n))
                acknowledged = n + 1
                for _ in range(rng.randrange(4)):
                    file.maintain(idle=rng.random() < 0.7)
    assert len(copies) > 15
    for crashed, at_least in copies:
        with opened(crashed) as file:
            revision = file.revision
            assert at_least <= revision <= at_least + 1
            expected.check(file, revision)
        with opened(crashed) as file:  # Closing it has folded the journal.
            expected.check(file, revision)
        assert count(crashed, "journal") == 0


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM journal WHERE revision = 2",
        "DELETE FROM journal WHERE revision = 1",
        "UPDATE journal SET body = substr(body, 1, 30) WHERE revision = 2",
        "UPDATE journal SET body = 5 WHERE revision = 3",
        "UPDATE journal SET facts = facts + 1",
        "UPDATE journal SET checksum = 0 WHERE revision = 1",
        "UPDATE meta SET revision = 1",
    ],
)
def test_a_damaged_journal_is_refused_with_the_remedy(path: Path, tmp_path: Path, damage: str) -> None:
    with opened(path) as file:
        for n in range(3):
            file.write([BatchWrite([change(f"o{n}")], n)])
        copy_as_if_killed(path, tmp_path / "crashed" / "adsum.db")
    crashed = tmp_path / "crashed" / "adsum.db"
    edit(crashed, damage)
    with pytest.raises(StoreOpenFailed, match="adsum restore"), opened(crashed):
        pass


def test_an_entry_that_cannot_be_decoded_is_refused_with_the_remedy(path: Path) -> None:
    with opened(path) as file:
        file.write([BatchWrite([change("o1")], 0, (), b'{"changes":[["a"]]}')])
        with pytest.raises(StoreOpenFailed, match=r"revision 1 can't be read: .*`adsum restore`"):
            file.full_state()


def test_a_fold_that_fails_leaves_all_in_the_journal_and_is_tried_again_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_small_bounds(monkeypatch.setattr)
    expected = ExpectedContents()
    with opened(path) as file:
        for n in range(8):
            expected.write(file, *batch(n))
        edit(path, "CREATE TRIGGER full BEFORE INSERT ON history BEGIN SELECT raise(ABORT, 'no room'); END")
        fold_while_idle(file)
        assert caplog.text.count("can't be folded now, and grows: no room") == 1
        expected.check(file)
        edit(path, "DROP TRIGGER full")
        assert not file.maintain(idle=True), "a failed fold is not tried at once"
        for n in range(8, 14):
            expected.write(file, *batch(n))
        fold_while_idle(file)
        assert count(path, "journal") < 8
        expected.check(file)


def test_past_the_bound_a_commit_is_refused_if_the_journal_cannot_be_folded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_bounds(monkeypatch.setattr)
    expected = ExpectedContents()
    with opened(path) as file:
        edit(path, "CREATE TRIGGER full BEFORE INSERT ON history BEGIN SELECT raise(ABORT, 'no room'); END")
        for n in range(61):
            expected.write(file, [change(f"o{n}")])
        with pytest.raises(sqlite3.Error, match="no room"):
            file.write([BatchWrite([change("o1")], 61)])
        expected.check(file)
        edit(path, "DROP TRIGGER full")
        expected.write(file, [change("o99")])
        expected.check(file)


def test_a_file_that_another_program_folded_is_read_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as file:
        assert file.write([BatchWrite([change("o1")], 0)]) == [1]
        edit(path, "UPDATE meta SET revision = 1, checksum = 0")
        with pytest.raises(StoreUnavailable, match=f"{path}: another program wrote to it"):
            file.write([BatchWrite([change("o2")], 1)])


async def test_a_store_folds_its_journal_while_it_is_idle(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_bounds(monkeypatch.setattr)
    folded, fold_slice = threading.Event(), JournalFolding.fold_slice

    def fold_and_look(self: JournalFolding) -> None:
        fold_slice(self)
        if not self.is_due:
            folded.set()

    monkeypatch.setattr(JournalFolding, "fold_slice", fold_and_look)
    store = SqliteStore(path)
    await store.open()
    for n in range(20):
        await store.commit([change(f"o{n}")], n)
    await asyncio.to_thread(folded.wait, 20.0)
    assert count(path, "listings") > 0
    assert [found.revision for found in await store.history(None, None, 99)] == list(range(20, 0, -1))
    assert len(current_listings(await current_snapshot(store))) == 20
    await store.close()


async def test_the_bounds_of_history_hold_while_it_is_in_the_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_EDITS_PER_DOCUMENT", 3)
    store = SqliteStore(path)
    await store.open()
    for n in range(8):
        await store.commit([change(f"o{m}", 1 + n) for m in range(200)], n, [put_route("r1", b'{"n":%d}' % n)])
    assert count(path, "journal") == 8
    assert len(await store.history(None, None, 5_000)) == 1_000
    assert len(await store.history("orders", None, 5_000)) == 1_000
    assert [found.revision for found in await store.edits(INTENT_KINDS, None, 9)] == [8, 7, 6]
    await store.close()
    store = SqliteStore(path)
    await store.open()
    assert len(current_listings(await current_snapshot(store))) == 200
    assert [found.revision for found in await store.edits(INTENT_KINDS, None, 9)] == [8, 7, 6]
    await store.close()


def test_a_commit_that_is_not_encoded_yet_is_encoded_on_the_thread_of_the_file(path: Path) -> None:
    with opened(path) as file:
        encoded = encode_entry([change("o3")], [])
        assert file.write([BatchWrite([change("o1")], 0), BatchWrite([change("o2")], 1, (), encoded)]) == [1, 2]
        assert [listing.key.id for _, listing in file.full_state().listings] == ["o1", "o3"]


def test_entries_are_json_that_later_versions_read() -> None:
    why = Provenance(Cause.REGISTERED, "ann", at=5.0)
    listing = Listing(Registration(Instance("orders", "o1", "127.0.0.1", 9)), why, since=5.0)
    gone = Provenance(Cause.DEREGISTERED, "ann", at=6.0)
    body = encode_entry(
        [Change(listing.key, listing, why), Change(listing.key, None, gone)],
        [put_route("r1", b'{"n":1}'), withdraw_route("r2")],
    )
    registered = {"cause": "registered", "actor": "ann", "at": 5.0}
    declared = {"cause": "declared", "actor": "tester", "at": 5.0}
    registration = {"address": "127.0.0.1", "port": 9, "ttl": 15.0, "grace": 60.0}
    assert msgspec.json.decode(body) == {
        "changes": [
            [
                "orders",
                "o1",
                {"why": registered, "status": "passing"},
                {"registration": registration, "why": registered, "since": 5.0},
            ],
            ["orders", "o1", {"why": {"cause": "deregistered", "actor": "ann", "at": 6.0}}, None],
        ],
        "edits": [
            [
                "route",
                "r1",
                {"says": {"n": 1}, "why": declared},
                {"kind": "declared", "why": declared, "after": {"n": 1}},
            ],
            ["route", "r2", None, {"kind": "withdrawn", "why": {"cause": "withdrawn", "actor": "tester", "at": 6.0}}],
        ],
    }
