"""Envoys that follow one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.envoy.restart import hot_restart
from adsum.envoy.restart.hot_restart import HotRestart


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that Envoys of the base id 12 share; the first of them has made it and says its number."""
    monkeypatch.setattr(hot_restart, "SHARED_MEMORY_FOLDER", tmp_path)
    (tmp_path / "base-id-1").write_text("12")
    shared = tmp_path / "envoy_shared_memory_120"
    shared.write_bytes(b"\x68" * 96 + b"\x01" + bytes(7))
    return shared


def test_the_first_follows_none_and_the_next_ones_count_up(memory: Path) -> None:
    one = HotRestart(memory.parent, 1)
    assert one.arguments() == ["--use-dynamic-base-id", "--base-id-path", str(memory.parent / "base-id-1")]
    one.mark_succeeded()
    assert one.arguments() == ["--base-id", "12", "--restart-epoch", "1"]
    one.mark_succeeded()
    assert one.arguments()[-1] == "2"


def test_after_one_that_came_to_nothing_another_is_accepted(memory: Path) -> None:
    one = HotRestart(memory.parent, 1)
    one.mark_succeeded()
    one.mark_failed()
    assert memory.read_bytes() == b"\x68" * 96 + bytes(8)
    assert one.arguments()[-1] == "1"


def test_nothing_stays_in_memory(memory: Path) -> None:
    one = HotRestart(memory.parent, 1)
    one.remove_shared_memory()
    assert not memory.exists()
    one.remove_shared_memory()
    HotRestart(memory.parent, 2).remove_shared_memory()
