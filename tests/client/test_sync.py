from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adsum import wire
from adsum.balance.picker import NoEndpoint
from adsum.client.sync import SyncClient
from adsum.core.errors import Invalid, UnknownInstance
from adsum.core.model import Status
from tests.client.stub_node import STREAM_HEAD, sse_event, stub_node, synced_event
from tests.support.registry_daemon import RunningDaemon


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "adsum"]


def test_the_sync_client_has_the_same_interface(daemon: RunningDaemon) -> None:
    with SyncClient(daemon.url, cache=False) as client:
        channel = client.channel("orders", policy="round_robin")
        assert channel is client.channel("orders", policy="round_robin")
        with client.register("orders", 8000, id="o1") as registrar:
            assert registrar.registered
            channel.ready()
            with channel.pick() as pick:
                assert pick.endpoint.url == "http://127.0.0.1:8000"
            attempt = channel.call(idempotent=True).next_try()
            assert not attempt.should_retry(200)
            attempt.finish()
            views = client.resolver("orders").watch()
            assert [endpoint.id for endpoint in next(views).endpoints] == ["o1"]
            assert registrar.drain(5.0).done
            assert next(views).endpoints[0].status == "draining"
            views.close()
        with pytest.raises(UnknownInstance):
            client.run(lambda client: client.api.instance("orders", "o1"))
        until(lambda: channel.view.endpoints == ())
        with pytest.raises(NoEndpoint, match="none is registered"):
            channel.pick()
    assert threads() == []
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.channel("users")


def test_clients_of_one_process_share_one_thread(daemon: RunningDaemon) -> None:
    with SyncClient(daemon.url, cache=False) as one, SyncClient(daemon.url, cache=False) as other:
        one.channel("orders")
        other.channel("orders")
        assert threads() == ["adsum"]
    assert threads() == []


def test_an_unused_sync_client_starts_no_thread() -> None:
    client = SyncClient("http://127.0.0.1:9", cache=False)
    assert threads() == []
    client.close()


def test_invalid_arguments_are_refused_when_the_client_is_made() -> None:
    with pytest.raises(Invalid):
        SyncClient("nowhere")


def test_many_threads_pick_from_one_channel(daemon: RunningDaemon) -> None:
    with SyncClient(daemon.url, cache=False) as client, client.register("orders", 8000, id="o1"):
        channel = client.channel("orders")
        channel.ready()
        with ThreadPoolExecutor(4) as threads:
            picks = list(threads.map(lambda _: channel.pick(), range(400)))
            list(threads.map(lambda pick: pick.done(), picks))
        assert {pick.endpoint.id for pick in picks} == {"o1"}
        assert not any(pick.is_open for pick in picks)


FORKING = """
import os, sys, adsum
client = adsum.SyncClient(sys.argv[1], cache=False)
registrar = client.register("orders", 8000, id="o1")
registrar.start()
channel = client.channel("orders")
channel.ready()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    channel.ready()
    picked = channel.pick().endpoint.id
    registrar.stop()
    os.write(writing, picked.encode())
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(os.read(reading, 10).decode(), status)
print(client.run(lambda client: client.api.instance("orders", "o1")).instance.status.value)
print(registrar.drain(20.0).done)
"""


def test_a_client_made_before_a_fork_works_in_the_child_and_does_not_touch_the_parents_registration(
    daemon: RunningDaemon,
) -> None:
    # Newer Pythons warn of every fork beside threads, which is what is tested here.
    python = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FORKING]
    done = subprocess.run([*python, daemon.url], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["o1 0", "passing", "True"]
    assert daemon.registry.snapshot.instance_count == 0, "the parent deregistered it at its exit"


LINGERING = """
import os, sys, time, adsum
client = adsum.SyncClient(sys.argv[1], cache=False)
resolver = client.resolver("orders")
while not resolver.connected:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
os._exit(0)
"""


def test_a_forked_child_keeps_no_watch_of_its_parent_open(daemon: RunningDaemon) -> None:
    parent = subprocess.Popen([sys.executable, "-c", LINGERING, daemon.url], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        parent.wait(20.0)
        until(lambda: daemon.registry.watches.count == 0)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


IMPORTING = """
import os, signal, sys, threading, time, adsum
client = adsum.SyncClient(sys.argv[1], cache=False)
began = threading.Event()
sys.modules["began"] = began
sys.path.insert(0, sys.argv[2])

async def importing(_):
    import slow

importer = threading.Thread(target=client.run, args=(importing,))
importer.start()
began.wait(20.0)
child = os.fork()
if child == 0:
    signal.alarm(20)
    import slow
    os._exit(0)
print(os.waitpid(child, 0)[1])
importer.join()
"""


HOOKS = """
import os, threading
register = os.register_at_fork
def report(**hooks):
    if threading.current_thread().name == "adsum": print("registered by the loop:", *hooks, flush=True)
    register(**hooks)
os.register_at_fork = report
import adsum
with adsum.SyncClient("http://localhost:1", cache=False) as client:
    try: client.channel("orders").ready(0.2)
    except adsum.NoEndpoint: print("tried")
"""


def test_the_background_loop_registers_no_fork_hooks_later() -> None:
    ended = subprocess.run([sys.executable, "-c", HOOKS], capture_output=True, text=True, check=True)
    assert ended.stdout == "tried\n"


def test_a_forked_child_can_import_a_module_that_the_loop_was_importing(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import sys, time\nsys.modules['began'].set()\ntime.sleep(0.5)\n")
    python = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", IMPORTING]
    done = subprocess.run([*python, daemon.url, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


EXITING = """
import sys, adsum
client = adsum.SyncClient(sys.argv[1], cache=False, name="exiting")
client.channel("orders").ready()
"""
UNCLOSED = """
import asyncio, sys, adsum

async def main():
    await adsum.Client(sys.argv[1], cache=False, name="exiting").channel("orders").ready()

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [EXITING, UNCLOSED])
async def test_a_program_that_ends_without_closing_its_client_sends_a_goodbye(program: str) -> None:
    opened = sse_event("open", wire.WatchOpened("e1", 5, True, "w1"))
    one = wire.InstanceView("a", "10.0.0.1", 80, Status.PASSING)
    service = sse_event("service", wire.ServiceView("e1", "orders", 5, [one]))
    async with stub_node() as node:
        node.watch_answers = [(STREAM_HEAD + opened + service + synced_event(5), True)]
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, node.url)
        async with asyncio.timeout(30.0):
            assert await child.wait() == 0
        (watch,) = [request for request in node.requests if "/watch?" in request]
        id = watch.partition("consumer=")[2].partition("&")[0]
        assert [request.partition("?")[0] for request in node.requests if request.startswith("DELETE")] == [
            f"DELETE /api/v1/consumers/{id}"
        ]
