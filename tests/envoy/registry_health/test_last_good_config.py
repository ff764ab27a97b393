"""What a gateway was told last, where it can't be kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.envoy.registry_health.last_good_config import LastGoodConfig, StaticResources
from tests.envoy.plans import plan_for

PLAN = plan_for()
TOLD = StaticResources([{"name": "a"}], [{"name": "b"}])


def test_without_a_folder_it_is_kept_while_the_gateway_runs_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = LastGoodConfig(None, PLAN)
    assert kept.load() is None
    kept.save(TOLD)
    kept.save(TOLD)
    assert kept.load() == TOLD
    assert [each.levelname for each in caplog.records if each.levelname != "DEBUG"] == ["WARNING"]
    assert "no home directory" in caplog.text


def test_what_can_not_be_written_is_kept_while_the_gateway_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    kept = LastGoodConfig(tmp_path / "file", PLAN)
    kept.save(TOLD)
    assert kept.load() == TOLD
    assert "can't be kept in" in caplog.text
