"""The document says what the daemon does: schemathesis asks everything that it can think of, with one seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from adsum import wire
from adsum.dialects.native.api.openapi import openapi_document
from adsum.dialects.native.api.operation_table import OPERATIONS
from tests.support.registry_daemon import RunningDaemon

HERE = Path(__file__).parent
EXAMPLES = 20


@pytest.mark.long
def test_schemathesis_finds_nothing(daemon: RunningDaemon, tmp_path: Path) -> None:
    options = ["--seed=7", f"--max-examples={EXAMPLES}", "--checks=all", "--phases=coverage,fuzzing", "--no-color"]
    options += ["--generation-database=none", "--request-timeout=10", "--continue-on-failure"]
    ran = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            f"{daemon.url}/api/v1/openapi.json",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(HERE.parent)},
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert httpx.get(f"{daemon.url}/readyz").status_code == 200


def test_every_route_is_documented_with_its_problems() -> None:
    paths = openapi_document()["paths"]
    for route in OPERATIONS:
        operation = paths[route.path][route.method.lower()]
        assert operation["operationId"] == route.name
        assert {str(code) for code in (*route.responses, *route.problems)} <= operation["responses"].keys()
        assert ("requestBody" in operation) == (route.body is not None)


def test_every_body_that_travels_is_in_the_document() -> None:
    schemas = openapi_document()["components"]["schemas"]
    for kind in (wire.RegistrationBody, wire.CheckBody, wire.ServiceView, wire.InstanceView, wire.Problem):
        assert kind.__name__ in schemas
    assert schemas["RegistrationBody"]["additionalProperties"] is False


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_people_find_a_page_that_needs_nothing_else(daemon: RunningDaemon, path: str) -> None:
    page = httpx.get(f"{daemon.url}{path}", follow_redirects=True)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for route in OPERATIONS:
        assert f"id='{route.name}'" in page.text
    assert "http://" not in page.text.replace(daemon.url, "")
    assert "<script" not in page.text
