"""The files that killed gateways leave behind."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.envoy.process.runtime_folder import RuntimeFolder
from adsum.envoy.restart import hot_restart
from tests.envoy.gateway_command import Start, has_exited, wait_until


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files; shared memory is redirected, too."""
    folder = Path(tempfile.mkdtemp(prefix="adsum-test-", dir="/tmp"))  # A long name would not be used.
    for name in ("t", "m"):
        (folder / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "t"))
    monkeypatch.setattr(hot_restart, "SHARED_MEMORY_FOLDER", folder / "m")
    yield folder / "t"
    shutil.rmtree(folder)


def test_the_folder_of_a_running_gateway_stays(parent: Path) -> None:
    first_folder, second_folder = RuntimeFolder(), RuntimeFolder()
    assert {first_folder.path, second_folder.path} == set(parent.iterdir())
    first_folder.close()
    first_folder.close()
    assert [second_folder.path] == list(parent.iterdir())
    second_folder.close()


def test_a_folder_without_a_lock_stays(parent: Path) -> None:
    (parent / "adsum-gateway-being-made").mkdir()
    (parent / "another").mkdir()
    (parent / "another" / "lock").touch()
    RuntimeFolder().close()
    assert sorted(folder.name for folder in parent.iterdir()) == ["adsum-gateway-being-made", "another"]


def test_the_folder_and_shared_memory_of_a_dead_gateway_are_removed(parent: Path) -> None:
    left_behind = parent / "adsum-gateway-left"
    left_behind.mkdir()
    (left_behind / "lock").touch()
    (left_behind / "base-id-1").write_text("12")
    memory = parent.parent / "m" / "envoy_shared_memory_120"
    memory.touch()
    other_memory = parent.parent / "m" / "envoy_shared_memory_130"
    other_memory.touch()
    RuntimeFolder().close()
    assert list(parent.iterdir()) == []
    assert (memory.exists(), other_memory.exists()) == (False, True)


def test_the_next_gateway_removes_what_a_killed_one_left(start: Start) -> None:
    first = start()
    first.wait_for_output("listens on")
    (envoy,) = first.envoys()
    (left_behind,) = first.tmp.iterdir()
    memory = (
        hot_restart.SHARED_MEMORY_FOLDER / f"envoy_shared_memory_{int((left_behind / 'base-id-1').read_text()) * 10}"
    )
    assert memory.exists()
    first.signal(signal.SIGKILL)
    first.process.wait()
    wait_until("Envoy's end", lambda: has_exited(envoy))
    assert left_behind.exists()
    second = start(TMPDIR=str(first.tmp))
    second.wait_for_output("listens on")
    assert not left_behind.exists()
    assert not memory.exists()
