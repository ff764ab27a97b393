"""Every example of docs/integrations.md is run as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import adsum
from tests.integrations.servers import Fleet
from tests.integrations.serving import Process, listed, passing, starting, until
from tests.running import RunningDaemon

DOCS = Path(__file__).parents[2] / "docs" / "integrations.md"
EXAMPLES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL))
Start = Callable[..., Process]


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
async def test_an_example_of_being_called_is_listed_until_it_is_told_to_end(
    argv: tuple[str, ...], daemon: RunningDaemon, start: Start, tmp_path: Path
) -> None:
    server = start(*argv, cwd=tmp_path)
    await until(lambda: len(passing(daemon)) == 1, "it is listed", server)
    server.signal(signal.SIGTERM)
    await server.end()
    assert listed(daemon) == {}, server.log
