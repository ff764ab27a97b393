"""The files in deploy/: units, an image and a compose file, as far as they can be checked without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adsum.config.run import RunConfig
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from tests.support.programs import need

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted(each.name for each in DEPLOY.glob("*.service"))
OLDER = "Failed to parse service type, ignoring: notify-reload"
"""The warning of a systemd before 253."""


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(name: str, tmp_path: Path) -> None:
    analyze, unit = need("systemd"), tmp_path / name
    program = Path(sys.executable).with_name("adsum")
    unit.write_text((DEPLOY / name).read_text().replace("/opt/adsum/bin/adsum", str(program)))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if name in line and OLDER not in line] == []


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_signals_only_the_main_process(name: str) -> None:
    assert "\nKillMode=mixed\n" in (DEPLOY / name).read_text()


def test_stop_timeouts_cover_a_drain_and_the_end_of_the_program() -> None:
    run = RunConfig()
    needed = max(DEFAULT_DRAIN_WAIT, run.drain_timeout) + run.stop_timeout
    found = re.search(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "example.service").read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > needed
    image = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["x-image"]
    assert int(image["stop_grace_period"].removesuffix("s")) > needed


def test_exit_code_143_is_a_success_for_systemd() -> None:
    assert "\nSuccessExitStatus=143\n" in (DEPLOY / "example.service").read_text()


def test_the_compose_file_publishes_only_the_gateway_and_on_loopback() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert {name: each.get("ports") for name, each in services.items() if "ports" in each} == {
        "gateway": ["127.0.0.1:8080:8080"]
    }
    for each in services.values():
        assert each["build"]["dockerfile"] == "deploy/Containerfile"


def test_the_image_runs_as_an_unprivileged_user() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    assert "USER 10001" in lines
    assert "VOLUME /data" in lines
    assert not [line for line in lines if "0.0.0.0" in line], "the image must listen on loopback by default"
