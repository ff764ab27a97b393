"""The embedded store: one SQLite file, one daemon.

Write-ahead log, synced before a commit is answered; commits that wait for the disk go together into one transaction,
on one thread of their own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, unquote

from adsum.core.changes import Batch, Change, Recorded, Whole
from adsum.core.errors import AdsumError, Invalid, StoreUnavailable
from adsum.stores.feed import Feed
from adsum.stores.file import File, Write

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Commit:
    """A batch on its way to the disk."""

    write: Write
    done: asyncio.Future[int]


class SqliteStore:
    """Keeps batches in one file. See `ports.Store` for what each method promises."""

    def __init__(self, path: Path, *, new_epoch: bool = False) -> None:
        self._file = File(path, new_epoch=new_epoch)
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: list[_Commit] = []
        self._writing: asyncio.Task[None] | None = None
        self._feeds: set[Feed] = set()

    @classmethod
    def of(cls, url: str) -> SqliteStore:
        """`sqlite:///PATH`; with `?epoch=new` the file starts a new epoch, as after restoring a backup."""
        rest = url.removeprefix("sqlite://")
        location, _, options = rest.partition("?")
        if rest == url or not location.startswith("/") or len(location) < 2:
            raise Invalid("store", f"must be sqlite:///PATH (sqlite:////PATH for an absolute path), not {url!r}")
        asked = parse_qs(options, keep_blank_values=True)
        if asked not in ({}, {"epoch": ["new"]}):
            raise Invalid("store", f"knows no option but ?epoch=new, not ?{options}")
        return cls(Path(unquote(location[1:])).expanduser(), new_epoch=bool(asked))

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, "adsum-sqlite")
        try:
            await self._run(self._file.open)
        except BaseException:
            await self.close()
            raise

    async def commit(self, changes: Sequence[Change], basis: int) -> int:
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        commit = _Commit(Write(changes, basis), asyncio.get_running_loop().create_future())
        self._waiting.append(commit)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting())
        return await commit.done

    async def _write_waiting(self) -> None:
        """Write all that waits, together, until nothing does."""
        while self._waiting:
            commits, self._waiting = self._waiting, []
            try:
                results = await self._run(partial(self._file.write, [each.write for each in commits]))
            except AdsumError as error:
                # A commit that failed may or may not have reached the disk: what is stored is looked at again.
                for feed in self._feeds:
                    feed.start_over()
                results = [error] * len(commits)
            for commit, result in zip(commits, results, strict=True):
                self._settle(commit, result)

    def _settle(self, commit: _Commit, result: int | AdsumError) -> None:
        if isinstance(result, int):
            batch = Batch(result, commit.write.changes)
            for feed in self._feeds:
                feed.tell(batch)
        if commit.done.done():
            return
        if isinstance(result, int):
            commit.done.set_result(result)
        else:
            commit.done.set_exception(result)

    async def watch(self) -> AsyncIterator[Whole | Batch]:
        feed = Feed(lambda: self._run(self._file.whole))
        self._feeds.add(feed)
        try:
            async for event in feed.follow():
                yield event
        finally:
            self._feeds.discard(feed)

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[Recorded]:
        return await self._run(lambda: self._file.history(service, id, limit))

    def age(self) -> float:
        return 0.0

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
        thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        """Do it on the file's own thread."""
        if self._thread is None:
            raise StoreUnavailable("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._file.path}: {error}") from error
