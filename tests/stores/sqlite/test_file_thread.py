"""The thread of a file: jobs in order, maintenance between them, and errors of both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from adsum.stores.sqlite import file_thread
from adsum.stores.sqlite.file_thread import FileThread


@asynccontextmanager
async def started(maintain: Callable[[bool], bool] = lambda idle: False) -> AsyncIterator[FileThread]:
    thread = FileThread(maintain)
    try:
        yield thread
    finally:
        thread.stop()


async def test_jobs_run_in_order_on_one_other_thread() -> None:
    ran: list[tuple[int, int]] = []
    async with started() as thread:
        for n in range(50):
            thread.submit(lambda n=n: ran.append((n, threading.get_ident())))  # type: ignore[misc]
        assert await thread.run(threading.get_ident) == ran[0][1] != threading.get_ident()
    assert ran == [(n, ran[0][1]) for n in range(50)]


async def test_run_raises_what_the_work_raises() -> None:
    async with started() as thread:
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 / 0)
        assert await thread.run(lambda: 5) == 5


async def test_the_work_of_a_cancelled_caller_is_done() -> None:
    async with started() as thread:
        may_end, ended = threading.Event(), threading.Event()

        def work() -> None:
            may_end.wait(20.0)
            ended.set()

        for wrong in (False, True):
            caller = asyncio.create_task(thread.run((lambda: 1 / 0) if wrong else work))
            await asyncio.sleep(0)
            caller.cancel()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await caller
        await thread.run(lambda: None)
        assert ended.is_set()


async def test_maintenance_follows_each_job_and_goes_on_while_no_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_thread, "IDLE_SECONDS", 0.0)
    calls: list[bool] = []
    done = threading.Event()

    def maintain(idle: bool) -> bool:
        calls.append(idle)
        if len(calls) == 5:
            done.set()
        return len(calls) < 5

    async with started(maintain) as thread:
        thread.submit(lambda: None)
        await asyncio.to_thread(done.wait, 20.0)
        assert calls == [False, True, True, True, True]


async def test_jobs_that_wait_come_before_idle_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_thread, "IDLE_SECONDS", 100.0)
    calls: list[bool] = []

    def maintain(idle: bool) -> bool:
        calls.append(idle)
        return True

    async with started(maintain) as thread:
        for _ in range(4):
            await thread.run(lambda: None)
    assert calls == [False] * 4


async def test_an_error_of_maintenance_is_logged_and_the_next_job_runs(caplog: pytest.LogCaptureFixture) -> None:
    def maintain(idle: bool) -> bool:
        raise ZeroDivisionError

    async with started(maintain) as thread:
        assert await thread.run(lambda: 1) == 1
        assert await thread.run(lambda: 2) == 2
    assert caplog.text.count("maintaining the file of the registry failed") == 2


async def test_a_result_for_a_closed_loop_is_dropped() -> None:
    other = asyncio.new_event_loop()
    thread = await asyncio.to_thread(lambda: other.run_until_complete(_start()))
    other.close()
    thread.submit(lambda: thread.notify(print, "never"))
    thread.stop()


async def _start() -> FileThread:
    return FileThread(lambda idle: False)
