"""The workers of one listening socket, and how one of them leads."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from adsum.core.errors import AdsumError
from adsum.integrations.worker_group import WorkerGroup
from tests.integrations.programs.second_worker import SecondWorker


def test_one_of_several_leads_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    worker, other_worker = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    other_worker.call("join")
    worker.join()
    assert other_worker.call("try_lead")
    assert not worker.try_lead()
    other_worker.kill()
    assert worker.try_lead()
    assert worker.try_lead(), "it keeps leading"
    worker.leave()
    assert not worker.others_serve()
    worker.close()


def test_a_worker_that_left_still_reports_the_drain(tmp_path: Path) -> None:
    worker, other_worker = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    worker.join()
    other_worker.call("join")
    assert worker.try_lead()
    assert not other_worker.call("is_drained")
    worker.leave()
    assert worker.others_serve()
    other_worker.call("leave")
    assert not worker.others_serve()
    assert not other_worker.call("is_drained")
    worker.mark_drained()
    assert other_worker.call("is_drained")
    assert not other_worker.call("try_lead"), "this worker still leads"
    worker.close()
    assert other_worker.call("try_lead")
    other_worker.kill()


def test_a_worker_that_joins_during_a_check_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, other_worker = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    lock, refused = fcntl.lockf, list[int]()

    def blocked_once(fd: int, operation: int, length: int, start: int) -> None:
        if operation & fcntl.LOCK_SH and not refused:
            refused.append(start)
            raise BlockingIOError
        lock(fd, operation, length, start)

    monkeypatch.setattr(fcntl, "lockf", blocked_once)
    worker.join()
    assert refused
    assert other_worker.call("others_serve")
    other_worker.kill()
    worker.close()


def test_a_process_registers_a_socket_once(tmp_path: Path) -> None:
    worker = WorkerGroup("orders", 8000, tmp_path)
    with pytest.raises(AdsumError, match="orders on port 8000 is registered by this process already"):
        WorkerGroup("orders", 8000, tmp_path)
    another = WorkerGroup("orders", 8001, tmp_path)
    worker.close()
    worker.close()
    WorkerGroup("orders", 8000, tmp_path).close()
    another.close()


def test_a_child_does_not_inherit_the_lead(tmp_path: Path) -> None:
    worker = WorkerGroup("orders", 8000, tmp_path)
    assert worker.try_lead()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"], {})
    worker.close()
    other_worker = SecondWorker(8000, tmp_path)
    assert other_worker.call("try_lead")
    other_worker.kill()
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_without_a_folder_every_worker_is_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    workers = WorkerGroup("orders", 8000, taken)
    assert "every worker of this server registers an instance of its own" in caplog.text
    workers.join()
    assert workers.try_lead()
    workers.leave()
    assert not workers.others_serve()
    workers.close()


def test_workers_that_serve_together_share_a_holder_whichever_leads(tmp_path: Path) -> None:
    worker, other_worker = WorkerGroup("orders", 8000, tmp_path), SecondWorker(8000, tmp_path)
    worker.join()
    assert worker.try_lead()
    holder = worker.holder()
    assert holder
    other_worker.call("join")
    worker.leave()
    worker.close()
    assert other_worker.call("try_lead")
    assert other_worker.call(f"holder().__eq__('{holder}').__bool__")
    other_worker.kill()
    next_server = WorkerGroup("orders", 8000, tmp_path)
    next_server.join()
    assert next_server.try_lead()
    assert next_server.holder() not in ("", holder), "no other worker served when it joined"
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
