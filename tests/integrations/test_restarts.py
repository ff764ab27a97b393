"""Real servers that start, stop and lose workers under load: one instance per socket, and no request is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

import adsum
from adsum.integrations.httpx import AsyncHttpxClient
from adsum.integrations.request_options import request_options
from adsum.integrations.requests import RequestsSession
from tests.integrations.programs.server_processes import ServerProcess, listed, load, passing, starting, wait_until
from tests.support.registry_daemon import RunningDaemon

Start = Callable[..., ServerProcess]
UVICORN = ("uvicorn", "tests.integrations.programs.apps:plain", "--port", "0", "--log-level", "warning")
GUNICORN = ("gunicorn", "-b", "127.0.0.1:0", "-w", "3", "--no-control-socket")
FLASK = (*GUNICORN, "-c", "tests/integrations/programs/gunicorn.conf.py", "tests.integrations.programs.apps:flask_app")
SIMPLE = (*GUNICORN, "tests.integrations.programs.apps:make_simple()")


@pytest.fixture
def start(daemon: RunningDaemon, tmp_path: Path) -> Iterator[Start]:
    with starting(daemon, tmp_path) as start:
        yield start


async def test_replacing_uvicorns_one_by_one_loses_no_request(daemon: RunningDaemon, start: Start) -> None:
    old = [start(*UVICORN), start(*UVICORN)]
    await wait_until(lambda: len(passing(daemon)) == 2, "both are listed", *old)
    async with adsum.Client(daemon.url, cache=False) as client, AsyncHttpxClient(client) as http:
        await client.channel("orders").ready()

        async def pay() -> str:
            with request_options(tries=1):  # No retry may hide a lost request.
                return (await http.post("http://orders/", content=b"once")).raise_for_status().text

        async with load(pay) as results:
            for server in old:
                await results.wait_for_answers()
                new = start(*UVICORN)
                await wait_until(lambda: len(passing(daemon)) == 3, "the new one is listed", new)
                server.signal(signal.SIGTERM)
                await server.wait_for_exit()
                assert len(listed(daemon)) == 2, "it deregistered"
            await results.wait_for_answers()
        assert results.failures == []
        assert len(results.answers) == 4


async def test_workers_of_one_uvicorn_are_one_instance(daemon: RunningDaemon, start: Start) -> None:
    other, several = start(*UVICORN), start(*UVICORN, "--workers", "2")
    await wait_until(lambda: len(passing(daemon)) == 2, "both are listed", other, several)
    before = set(listed(daemon))
    killed = several.workers()
    for pid in killed[:1]:
        os.kill(pid, signal.SIGKILL)
    await several.wait_until_replaced(killed[0], 2)
    assert set(listed(daemon)) == before
    async with adsum.Client(daemon.url, cache=False) as client, AsyncHttpxClient(client) as http:
        await client.channel("orders").ready()

        async def pay() -> str:
            with request_options(tries=1):
                return (await http.post("http://orders/", content=b"once")).raise_for_status().text

        async with load(pay) as results:
            await results.wait_for_answers(60)
            several.signal(signal.SIGTERM)
            await several.wait_for_exit()
            assert len(listed(daemon)) == 1
            await results.wait_for_answers()
        assert results.failures == []


async def test_gunicorn_with_flask_is_one_instance_and_leaves_without_losing_a_request(
    daemon: RunningDaemon, start: Start
) -> None:
    servers = [start(*FLASK), start(*FLASK)]
    await wait_until(lambda: len(passing(daemon)) == 2, "both are listed", *servers)
    before = set(listed(daemon))
    first, second = servers
    for pid in first.workers():
        os.kill(pid, signal.SIGKILL)
        await first.wait_until_replaced(pid, 3)
    first.signal(signal.SIGHUP)
    with adsum.SyncClient(daemon.url, cache=False) as client, RequestsSession(client) as http:
        client.channel("orders").ready()

        def get() -> str:
            with request_options(tries=1):
                answer = http.get("http://orders/")
            answer.raise_for_status()
            return answer.text

        async with load(get) as results:
            await results.wait_for_answers(60)
            assert set(listed(daemon)) == before
            first.signal(signal.SIGTERM)
            await first.wait_for_exit()
            assert len(listed(daemon)) == 1
            await results.wait_for_answers()
        assert results.failures == [], first.log
    second.signal(signal.SIGTERM)
    await second.wait_for_exit()
    assert listed(daemon) == {}


async def test_recycling_every_worker_of_a_socket_changes_nothing_in_the_catalog(
    daemon: RunningDaemon, start: Start, tmp_path: Path
) -> None:
    server = start(*SIMPLE)
    await wait_until(lambda: len(passing(daemon)) == 1, "it is listed", server)
    (before,) = listed(daemon).values()
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
        await server.wait_until_replaced(pid, 3)
    after_its_ttl = time.monotonic() + 4.0
    await wait_until(lambda: time.monotonic() > after_its_ttl and len(passing(daemon)) == 1, "another renews", server)
    (after,) = listed(daemon).values()
    assert after.registration == before.registration, "the holder, too: to the registry, all workers are one process"
    server.signal(signal.SIGTERM)
    await server.wait_for_exit()
    assert listed(daemon) == {}, server.log


async def test_a_single_worker_that_is_replaced_after_some_requests_changes_nothing_in_the_catalog(
    daemon: RunningDaemon, start: Start
) -> None:
    server = start(*SIMPLE, "-w", "1", "--max-requests", "4")
    await wait_until(lambda: len(passing(daemon)) == 1, "it is listed", server)
    before = daemon.registry.snapshot.service("orders")
    (listing,) = before.listings.values()
    workers: set[int] = set()

    def replaced() -> bool:
        workers.update(server.workers())
        return len(workers) > 2

    def call() -> str:
        time.sleep(0.5)  # So that each worker serves for a while.
        return requests.get(f"http://{listing.instance.authority}/", timeout=10.0).text

    async with load(call, callers=1):
        await wait_until(replaced, "its worker is replaced again and again", server)
    after = daemon.registry.snapshot.service("orders")
    assert after is before, [step.provenance for step in after.recent_changes]
    server.signal(signal.SIGTERM)
    await server.wait_for_exit()
