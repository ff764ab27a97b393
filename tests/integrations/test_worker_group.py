from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from adsum.core.errors import AdsumError
from adsum.integrations.worker_group import WorkerGroup
from tests.integrations.programs.second_worker import SecondWorker


def test_one_of_several_has_the_turn_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    ours, other = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    other.call("join")
    ours.join()
    assert other.call("try_lead")
    assert not ours.try_lead()
    other.kill()
    assert ours.try_lead()
    assert ours.try_lead(), "it stays ours"
    ours.leave()
    assert not ours.others_serve()
    ours.close()


def test_who_leaves_is_not_waited_for_and_says_when_callers_were_told(tmp_path: Path) -> None:
    ours, other = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    ours.join()
    other.call("join")
    assert ours.try_lead()
    assert not other.call("is_drained")
    ours.leave()
    assert ours.others_serve()
    other.call("leave")
    assert not ours.others_serve()
    assert not other.call("is_drained")
    ours.mark_drained()
    assert other.call("is_drained")
    assert not other.call("try_lead"), "the turn is still ours"
    ours.close()
    assert other.call("try_lead")
    other.kill()


def test_who_joins_while_another_looks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    lock, refused = fcntl.lockf, list[int]()

    def in_the_way_once(fd: int, how: int, length: int, start: int) -> None:
        if how & fcntl.LOCK_SH and not refused:
            refused.append(start)
            raise BlockingIOError
        lock(fd, how, length, start)

    monkeypatch.setattr(fcntl, "lockf", in_the_way_once)
    ours.join()
    assert refused
    assert other.call("others_serve")
    other.kill()
    ours.close()


def test_a_process_registers_a_socket_once(tmp_path: Path) -> None:
    ours = WorkerGroup("orders", 8000, tmp_path)
    with pytest.raises(AdsumError, match="orders on port 8000 is registered by this process already"):
        WorkerGroup("orders", 8000, tmp_path)
    another = WorkerGroup("orders", 8001, tmp_path)
    ours.close()
    ours.close()
    WorkerGroup("orders", 8000, tmp_path).close()
    another.close()


def test_a_child_does_not_inherit_the_turn(tmp_path: Path) -> None:
    ours = WorkerGroup("orders", 8000, tmp_path)
    assert ours.try_lead()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"], {})
    ours.close()
    other = SecondWorker(8000, tmp_path)
    assert other.call("try_lead")
    other.kill()
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_without_a_folder_every_worker_is_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    workers = WorkerGroup("orders", 8000, taken)
    assert "every worker of this server registers for itself" in caplog.text
    workers.join()
    assert workers.try_lead()
    workers.leave()
    assert not workers.others_serve()
    workers.close()


def test_workers_that_serve_together_share_a_holder_whoever_has_the_turn(tmp_path: Path) -> None:
    ours, other = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    ours.join()
    assert ours.try_lead()
    holder = ours.holder()
    assert holder
    other.call("join")
    ours.leave()
    ours.close()
    assert other.call("try_lead")
    assert other.call(f"holder().__eq__('{holder}').__bool__")
    other.kill()
    next_server = WorkerGroup("orders", 8000, tmp_path)
    next_server.join()
    assert next_server.try_lead()
    assert next_server.holder() not in ("", holder), "nobody served when it began"
    next_server.close()


def test_the_workers_of_one_socket_share_a_holder_even_one_after_the_other(tmp_path: Path) -> None:
    holders = []
    for socket in ("boot:7", "boot:7", "boot:8"):
        worker = WorkerGroup("orders", 8000, tmp_path)
        worker.join(socket)
        assert worker.try_lead()
        holders.append(worker.holder())
        worker.close()
    assert holders[0] == holders[1] != holders[2]
