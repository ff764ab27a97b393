"""Hot restart: the arguments of each Envoy, and the shared memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.envoy.restart import hot_restart
from adsum.envoy.restart.hot_restart import HotRestart


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared memory of the Envoys with base id 12, while one of them is starting."""
    monkeypatch.setattr(hot_restart, "SHARED_MEMORY_FOLDER", tmp_path)
    (tmp_path / "base-id-1").write_text("12")
    shared = tmp_path / "envoy_shared_memory_120"
    shared.write_bytes(b"\x68" * 96 + b"\x01" + bytes(7))
    return shared


def test_each_envoy_takes_over_from_the_one_before(memory: Path) -> None:
    hot_restart = HotRestart(memory.parent, 1)
    assert hot_restart.arguments() == ["--use-dynamic-base-id", "--base-id-path", str(memory.parent / "base-id-1")]
    hot_restart.mark_succeeded()
    assert hot_restart.arguments() == ["--base-id", "12", "--restart-epoch", "1"]
    hot_restart.mark_succeeded()
    assert hot_restart.arguments()[-1] == "2"


def test_a_failed_takeover_blocks_further_ones_until_its_flags_are_cleared(memory: Path) -> None:
    hot_restart = HotRestart(memory.parent, 1)
    hot_restart.mark_succeeded()
    before = hot_restart.is_blocked
    hot_restart.unblock()
    assert (before, hot_restart.is_blocked) == (True, False)
    assert memory.read_bytes() == b"\x68" * 96 + bytes(8)
    assert hot_restart.arguments()[-1] == "1"


def test_the_shared_memory_is_removed(memory: Path) -> None:
    hot_restart = HotRestart(memory.parent, 1)
    hot_restart.remove_shared_memory()
    assert not memory.exists()
    hot_restart.remove_shared_memory()
    HotRestart(memory.parent, 2).remove_shared_memory()
