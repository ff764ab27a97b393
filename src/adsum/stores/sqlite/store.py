"""The embedded store: one SQLite file, used by one daemon.

The write-ahead log is synced before a commit returns. Commits that wait for the disk are written together in one
transaction. All access to the file runs on one thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from adsum.stores.sqlite.file import SqliteFile
from adsum.stores.sqlite.rows import BatchWrite

T = TypeVar("T")

WRITABLE_CHECK_INTERVAL: Final = 2.0
"""Seconds between two checks that the file can be written."""

_log = logging.getLogger("adsum.store")


@dataclass(frozen=True, slots=True, eq=False)
class _Commit:
    """A batch that waits to be written, and the future of its revision."""

    write: BatchWrite
    done: asyncio.Future[int]

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
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: list[_Commit] = []
        self._writing: asyncio.Task[None] | None = None
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
        self._thread = ThreadPoolExecutor(1, "adsum-sqlite")
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
        write = BatchWrite(tuple(changes), base_revision, tuple(edits))
        commit = _Commit(write, asyncio.get_running_loop().create_future())
        self._waiting.append(commit)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting(), name="adsum-sqlite")
        return await commit.done

    async def confirm(self, base_revision: int) -> None:
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        if base_revision != self._file.revision:
            raise StoreConflict(f"decided on revision {base_revision}, but the store is at {self._file.revision}")

    async def _write_waiting(self) -> None:
        """Writes the waiting commits, all that wait in one transaction, until none waits."""
        while self._waiting:
            commits, self._waiting = self._waiting, []
            results: list[int | Exception]
            try:
                results = await self._run(partial(self._file.write, [commit.write for commit in commits]))
            except Exception as error:
                results = [error] * len(commits)
                self._set_trouble(str(error))
            else:
                self._set_trouble("")
            for commit, result in zip(commits, results, strict=True):
                if isinstance(result, int):
                    self._published_revision = result
                    self._feed.publish(Batch(result, commit.write.changes, commit.write.edits))
                commit.settle(result)
            self._resync_if_moved()

    async def _check_writable(self) -> None:
        """Checks periodically that the file can be written. After a failure it writes, to notice the recovery."""
        while True:
            await self._clock.sleep(WRITABLE_CHECK_INTERVAL)
            try:
                await self._run(partial(self._file.check_writable, write=bool(self._trouble)))
                self._set_trouble("")
            except StoreUnavailable as error:
                self._set_trouble(str(error))
            self._resync_if_moved()

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self._trouble:
            self._trouble_since = self._clock.now()
        self._trouble = trouble
        if trouble:
            self._outage.failed(trouble)
        else:
            self._outage.recovered(self._file.path)

    def _resync_if_moved(self) -> None:
        """Gives followers the full state if the file is at another revision than was published.

        A write that failed may be in the file nevertheless.
        """
        if self._file.revision != self._published_revision:
            self._published_revision = self._file.revision
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
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        """Runs `work` on the file's thread. Raises `StoreUnavailable` for SQLite's errors, and what `work` raises."""
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise StoreUnavailable(f"{self._file.path}: {error}") from error
