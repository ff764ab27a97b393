"""The embedded store: one SQLite file, used by one daemon.

A commit appends its batch to the journal of the file, and returns when it is synced. Commits that wait for the disk
are written together in one transaction, and the next ones are encoded meanwhile. All access to the file runs on one
thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qs, unquote

from adsum.clock import SystemClock
from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.errors import Invalid, StoreConflict, StoreUnavailable
from adsum.core.nodes.sharding import SingleNode
from adsum.outage_log import OutageLog
from adsum.ports import Clock
from adsum.stores.batch_feed import BatchFeed
from adsum.stores.edit_log import MAX_EDITS_ON_EVENT_LOOP
from adsum.stores.sqlite.file import BatchWrite, SqliteFile
from adsum.stores.sqlite.file_thread import FileThread
from adsum.stores.sqlite.journal_entry import encode_entry

T = TypeVar("T")

WRITABLE_CHECK_INTERVAL: Final = 2.0
"""Seconds between two checks that the file can be written."""

_log = logging.getLogger("adsum.store")


MAX_CHANGES_ENCODED_ON_EVENT_LOOP: Final = 1_000
"""Changes of a batch that is encoded on the event loop, some 2 ms, while the file is being synced. A larger batch, or
one of more edits than `MAX_EDITS_ON_EVENT_LOOP`, is encoded on the file's thread."""


class _Commit:
    """A batch that waits to be written, and the future of its revision."""

    __slots__ = ("done", "write")

    def __init__(self, write: BatchWrite, done: asyncio.Future[int]) -> None:
        self.write = write
        self.done = done

    def settle(self, result: int | Exception) -> None:
        """Sets the revision or the error."""
        if self.done.done():  # The caller was cancelled.
            return
        if isinstance(result, int):
            self.done.set_result(result)
        else:
            self.done.set_exception(result)


class SqliteStore:
    """Implements `ports.Store` over one SQLite file."""

    is_shared: Final = False

    def __init__(self, path: Path, *, new_epoch: bool = False, clock: Clock | None = None) -> None:
        self._file = SqliteFile(path, new_epoch=new_epoch)
        self._clock: Clock = clock or SystemClock()
        self._trouble = ""
        """The reason why nothing can be written; "" while the file can be written."""
        self._trouble_since = 0.0
        self._outage = OutageLog(
            _log,
            "nothing can be written: %s",
            "%s can be written again",
        )
        self._checking: asyncio.Task[None] | None = None
        self._thread: FileThread | None = None
        self._waiting: deque[_Commit] = deque()
        """Commits for the file's thread, which takes all that wait when it is free."""
        self._feed = BatchFeed(lambda: self._run(self._file.full_state))
        self._published_revision = 0

    @classmethod
    def from_url(cls, url: str) -> SqliteStore:
        """Returns the store of `sqlite:///PATH`, or `sqlite:////PATH` for an absolute path. Raises `Invalid`.

        With `?epoch=new` the file gets a new epoch whenever it is opened. A file that was restored from a backup needs
        that once: consumers that saw later revisions must not compare them with those of the backup.
        """
        location, _, options = url.removeprefix("sqlite://").partition("?")
        path = unquote(location[1:])
        if not url.startswith("sqlite:///") or not path or "\0" in path:
            raise Invalid("store", f"must be sqlite:///PATH (sqlite:////PATH for an absolute path), not {url!r}")
        given = parse_qs(options, keep_blank_values=True)
        if given not in ({}, {"epoch": ["new"]}):
            raise Invalid("store", f"accepts only the option ?epoch=new, not ?{options}")
        return cls(Path(path).expanduser(), new_epoch=bool(given))

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self._file.path

    def join(self, name: str) -> SingleNode:
        return SingleNode(name)

    async def open(self) -> None:
        self._thread = FileThread(lambda idle: self._file.maintain(idle=idle))
        try:
            await self._run(self._file.open)
        except BaseException:
            await self.close()
            raise
        self._published_revision = self._file.revision
        self._checking = asyncio.create_task(self._check_writable(), name="adsum-sqlite-check")

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        try:
            self._file.check_in_place()
        except StoreUnavailable as error:
            self._set_trouble(str(error))
            raise
        early = len(changes) <= MAX_CHANGES_ENCODED_ON_EVENT_LOOP and len(edits) <= MAX_EDITS_ON_EVENT_LOOP
        body = encode_entry(changes, edits) if early else None
        write = BatchWrite(tuple(changes), base_revision, tuple(edits), body)
        commit = _Commit(write, asyncio.get_running_loop().create_future())
        self._waiting.append(commit)
        self._thread.submit(partial(self._write_waiting, self._thread))
        return await commit.done

    async def wait_for_turn(self) -> None:
        """Returns at once: no other node writes."""

    async def confirm(self, base_revision: int) -> None:
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        if base_revision != self._published_revision:
            raise StoreConflict(f"decided on revision {base_revision}, but the store is at {self._published_revision}")

    def _write_waiting(self, thread: FileThread) -> None:
        """Writes the waiting commits in one transaction. A job of the file's thread; there is one for each commit."""
        commits: list[_Commit] = []
        while self._waiting:
            commits.append(self._waiting.popleft())
        if not commits:
            return  # An earlier job wrote them.
        results: list[int | Exception]
        trouble = ""
        try:
            results = self._file.write([commit.write for commit in commits])
        except Exception as error:
            failure = self._translated(error)
            results, trouble = [failure] * len(commits), str(failure)
        thread.notify(self._settle, commits, results, trouble, self._file.revision)

    def _settle(self, commits: list[_Commit], results: list[int | Exception], trouble: str, revision: int) -> None:
        """Publishes the commits that were written, and gives all of them their results."""
        self._set_trouble(trouble)
        for commit, result in zip(commits, results, strict=True):
            if isinstance(result, int):
                self._published_revision = result
                self._feed.publish(Batch(result, commit.write.changes, commit.write.edits))
            commit.settle(result)
        self._resync_if_moved(revision)

    async def _check_writable(self) -> None:
        """Checks periodically that the file can be written. After a failure it writes, to notice the recovery."""
        while True:
            await self._clock.sleep(WRITABLE_CHECK_INTERVAL)
            if self._thread is not None:
                self._thread.submit(partial(self._check_file, self._thread))
                await self._thread.run(lambda: None)

    def _check_file(self, thread: FileThread) -> None:
        """A job of the file's thread."""
        trouble = ""
        try:
            self._file.check_writable(write=bool(self._trouble))
        except Exception as error:
            trouble = str(self._translated(error))
        # The event loop handles this in the order of the jobs. A task that it wakes may run after a later commit.
        thread.notify(self._settle, [], [], trouble, self._file.revision)

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self._trouble:
            self._trouble_since = self._clock.now()
        self._trouble = trouble
        if trouble:
            self._outage.failed(trouble)
        else:
            self._outage.recovered(self._file.path)

    def _resync_if_moved(self, revision: int) -> None:
        """Gives followers the full state if the file is at another revision than was published.

        A write that failed may be in the file nevertheless.
        """
        if revision != self._published_revision:
            self._published_revision = revision
            self._feed.resync()

    def watch(self) -> AsyncIterator[FullState | Batch]:
        return self._feed.watch()

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        return await self._run(partial(self._file.history, service, id, limit))

    async def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> Sequence[RecordedEdit]:
        return await self._run(partial(self._file.edits, kinds, name, limit))

    def age(self) -> float:
        return 0.0

    def isolated_seconds(self) -> float:
        return self._clock.now() - self._trouble_since if self._trouble else 0.0

    def condition(self) -> Mapping[str, str]:
        return {"trouble": self._trouble} if self._trouble else {}

    async def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.run(self._file.close)
            thread.stop()

    async def _run(self, work: Callable[[], T]) -> T:
        """Runs `work` on the file's thread. Raises `StoreUnavailable` for SQLite's errors, and what `work` raises."""
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        try:
            return await self._thread.run(work)
        except Exception as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> Exception:
        """Returns `StoreUnavailable` for an error of SQLite, and other errors as they are."""
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            return StoreUnavailable(f"{self._file.path}: {error}")
        return error
