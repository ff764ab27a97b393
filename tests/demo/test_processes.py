"""The processes of the demo: all are stopped, and one that fails is reported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adsum.demo.processes import DemoFailed, ProcessGroup, clean_environment


async def test_a_process_that_ends_unexpectedly_is_reported_with_its_last_output(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, clean_environment("http://127.0.0.1:1", tmp_path))
    process = processes.start("orders-1", [sys.executable, "-c", "import sys; print('hm'); sys.exit('no port')"])
    await process.ended()
    with pytest.raises(DemoFailed, match=r"^orders-1 ended unexpectedly: exit code 1; its last output: no port$"):
        processes.check_running()
    await processes.close()


async def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, {})
    with pytest.raises(DemoFailed, match="orders-1 can't be started: No such file or directory"):
        processes.start("orders-1", ["no-such-program"])


async def test_processes_that_were_stopped_on_purpose_are_not_failures(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, clean_environment("http://127.0.0.1:1", tmp_path))
    one, other = (processes.start(name, ["sleep", "600"]) for name in ("a", "b"))
    processes.kill(one)
    processes.stop(other)
    await one.ended()
    await other.ended()
    processes.check_running()
    await processes.close()


async def test_closing_stops_every_process(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, clean_environment("http://127.0.0.1:1", tmp_path))
    started = [processes.start(name, ["sleep", "600"]) for name in ("a", "b", "c")]
    await processes.close()
    assert not any(process.running for process in started)


def test_child_processes_get_none_of_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_STORE", "sqlite:////precious.db")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/somebody")
    environ = clean_environment("http://127.0.0.1:1", tmp_path)
    assert environ["ADSUM_URL"] == "http://127.0.0.1:1"
    assert not {"ADSUM_STORE", "XDG_CONFIG_HOME"} & environ.keys()
