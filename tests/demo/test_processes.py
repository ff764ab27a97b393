"""The demo's processes: none is left, and one that fails is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adsum.demo.processes import DemoFailed, ProcessGroup, clean_environment


async def test_a_process_that_ends_by_itself_is_told_in_one_sentence_with_its_last_words(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, clean_environment("http://127.0.0.1:1", tmp_path))
    process = processes.start("orders-1", [sys.executable, "-c", "import sys; print('hm'); sys.exit('no port')"])
    await process.ended()
    with pytest.raises(DemoFailed, match=r"^orders-1 has ended by itself: exit code 1; it said last: no port$"):
        processes.check_running()
    await processes.close()


async def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, {})
    with pytest.raises(DemoFailed, match="orders-1 can't be started: No such file or directory"):
        processes.start("orders-1", ["no-such-program"])


async def test_those_that_were_stopped_on_purpose_are_no_failure(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, clean_environment("http://127.0.0.1:1", tmp_path))
    one, other = (processes.start(name, ["sleep", "600"]) for name in ("a", "b"))
    processes.kill(one)
    processes.stop(other)
    await one.ended()
    await other.ended()
    processes.check_running()
    await processes.close()


async def test_closing_leaves_none(tmp_path: Path) -> None:
    processes = ProcessGroup(tmp_path, clean_environment("http://127.0.0.1:1", tmp_path))
    started = [processes.start(name, ["sleep", "600"]) for name in ("a", "b", "c")]
    await processes.close()
    assert not any(process.running for process in started)


def test_children_see_none_of_our_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_STORE", "sqlite:////precious.db")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/somebody")
    environ = clean_environment("http://127.0.0.1:1", tmp_path)
    assert environ["ADSUM_URL"] == "http://127.0.0.1:1"
    assert not {"ADSUM_STORE", "XDG_CONFIG_HOME"} & environ.keys()
