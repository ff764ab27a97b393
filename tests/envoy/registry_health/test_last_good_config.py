"""The last good configuration when it can't be kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.envoy.registry_health.last_good_config import LastGoodConfig, StaticResources
from tests.envoy.plans import plan_for

PLAN = plan_for()
RESOURCES = StaticResources([{"name": "a"}], [{"name": "b"}])


def test_without_a_folder_it_is_kept_in_memory_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = LastGoodConfig(None, PLAN)
    assert config.load() is None
    config.save(RESOURCES)
    config.save(RESOURCES)
    assert config.load() == RESOURCES
    assert [record.levelname for record in caplog.records if record.levelname != "DEBUG"] == ["WARNING"]
    assert "no home directory" in caplog.text


def test_a_config_that_cannot_be_written_is_kept_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    config = LastGoodConfig(tmp_path / "file", PLAN)
    config.save(RESOURCES)
    assert config.load() == RESOURCES
    assert "can't be kept in" in caplog.text
