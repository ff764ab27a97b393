"""Commands that act on several instances."""

from __future__ import annotations

from typing import Any

import pytest

from adsum.cli import instance_selector
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.loader import Settings
from adsum.core.model import Key

KEYS = [Key("orders", f"o{n}") for n in range(3)]


def test_all_instances_start_to_drain_before_any_is_waited_for_and_share_one_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []
    now = [100.0]
    monkeypatch.setattr(instance_selector, "run_with_client", lambda loaded, work: KEYS)
    monkeypatch.setattr("adsum.cli.instance_selector.time.monotonic", lambda: now[0])

    def wait(loaded: Settings, key: Key, timeout: float) -> None:
        calls.append((key.id, timeout))
        now[0] += 4.0
        raise CommandFailed(ExitCode.TIMEOUT, "some have not confirmed")

    run = instance_selector.for_each_instance(lambda loaded, keys, given: calls.append((*keys, given["timeout"])))(wait)
    with pytest.raises(CommandFailed) as ended:
        run(Settings.__new__(Settings), key=Key("orders", ""), all_instances=True, at=None, timeout=6.0)
    assert calls == [(*KEYS, 6.0), ("o0", 6.0), ("o1", 2.0), ("o2", 0.1)]
    assert ended.value.code is ExitCode.TIMEOUT
