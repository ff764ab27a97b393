"""Runs every example of docs/integrations.md as it is, and the examples of other pages that register a program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

import adsum
from adsum.run.port import claim_free_port
from tests.integrations.programs.server_processes import ROOT, ServerProcess, listed, passing, starting, wait_until
from tests.integrations.servers import Fleet
from tests.scenarios.processes import JsonApi
from tests.support.registry_daemon import RunningDaemon

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", (DOCS / "integrations.md").read_text(), re.DOTALL))
SERVER = f"""
import http.server, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.client.registration.block_programs import QuietHandler, serves
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), QuietHandler)
"""
"""A server that answers HTTP, with and without a loop: the examples of docs/client.md leave it to the reader."""
IN_ASYNC_MAIN = """
import asyncio
async def serve():
    server.server_close()
    await serves(PORT)
async def main():
    async with adsum.Client() as client:
{body}
asyncio.run(main())
"""
Start = Callable[..., ServerProcess]


def _registering_examples(page: str, port: int) -> list[str]:
    """The programs of a page that register themselves and end on SIGTERM."""
    programs = re.findall(r"```python\n([^`]*(?:client\.register|serving)\([^`]*)```", (DOCS / page).read_text())
    if page == "grpc.md":
        return programs
    with_port = [
        text.replace("8000", str(port)) for text in programs if "etcd://" not in text and "consul://" not in text
    ]
    runnable = [
        IN_ASYNC_MAIN.format(body=textwrap.indent(text, " " * 8)) if "async with" in text else text
        for text in with_port
    ]
    return [f"import adsum\nPORT = {port}\n{SERVER}\n{text}" for text in runnable]


REGISTERING = [("client.md", 0), ("client.md", 1), ("grpc.md", 0), ("grpc.md", 1)]


@pytest.fixture
def start(daemon: RunningDaemon, tmp_path: Path) -> Iterator[Start]:
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    with starting(daemon, tmp_path) as start:
        yield start


def test_there_is_an_example_for_each_library() -> None:
    calling = {"call_httpx_async.py", "call_httpx.py", "call_aiohttp.py", "call_requests.py"}
    assert set(EXAMPLES) == calling | {"app.py", "gunicorn.conf.py", "shop.py"}


@pytest.mark.parametrize("name", sorted(name for name in EXAMPLES if name.startswith("call_")))
def test_an_example_of_calling_calls(name: str, daemon: RunningDaemon, fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.add("the answer")
    with adsum.SyncClient(daemon.url, cache=False) as client, client.register("orders", server.port):
        environ = {**os.environ, "ADSUM_URL": daemon.url, "XDG_CACHE_HOME": str(tmp_path)}
        argv = [sys.executable, "-W", "error", "-c", EXAMPLES[name]]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("the answer\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        ("uvicorn", "app:app", "--port", "0"),
        ("gunicorn", "-c", "gunicorn.conf.py", "--no-control-socket", "shop:shop"),
        ("flask", "--app", "shop", "run", "--port", "0"),
    ],
    ids=lambda argv: argv[0],
)
async def test_an_example_of_being_called_is_listed_until_sigterm(
    argv: tuple[str, ...], daemon: RunningDaemon, start: Start, tmp_path: Path
) -> None:
    server = start(*argv, cwd=tmp_path)
    await wait_until(lambda: len(passing(daemon)) == 1, "it is listed", server)
    server.signal(signal.SIGTERM)
    await server.wait_for_exit()
    assert listed(daemon) == {}, server.log


@pytest.mark.parametrize("page", ["client.md", "grpc.md"])
def test_every_example_of_registering_a_program_runs(page: str) -> None:
    assert len(_registering_examples(page, 1)) == len([example for example in REGISTERING if example[0] == page])


@pytest.mark.parametrize(("page", "number"), REGISTERING)
async def test_an_example_of_registering_a_program_is_drained_by_sigterm(
    page: str, number: int, daemon: RunningDaemon, start: Start, tmp_path: Path
) -> None:
    claim = claim_free_port(Random())
    try:
        (tmp_path / "example.py").write_text(_registering_examples(page, claim.port)[number])
        server = start("example", cwd=tmp_path)
        await wait_until(lambda: len(passing(daemon)) == 1, "it is listed", server)
        (id,) = listed(daemon)
        server.signal(signal.SIGTERM)
        await server.wait_for_exit()
    finally:
        claim.release()
    assert listed(daemon) == {}, server.log
    async with JsonApi(daemon.url) as api:
        causes = [change["cause"] for change in (await api.get("/changes", service="orders", id=id))["changes"]]
    assert causes[:2] == ["deregistered", "drained"], causes
    assert server.exit_code == 143, server.log
