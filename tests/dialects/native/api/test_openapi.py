"""The OpenAPI document matches the daemon: schemathesis sends generated requests, with a fixed seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from adsum import wire
from adsum.core.access.actions import Action
from adsum.dialects.native.api.docs_page import docs_page
from adsum.dialects.native.api.openapi import openapi_document, required_scope
from adsum.dialects.native.api.operation_table import OPERATIONS
from tests.support.registry_daemon import RunningDaemon

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
MAX_EXAMPLES = 20


@pytest.mark.long
def test_schemathesis_finds_nothing(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsum.access.failures.FAILURE_BURST", 1e9)  # Wrong invites are answered without a delay.
    options = ["--seed=7", f"--max-examples={MAX_EXAMPLES}", "--checks=all", "--phases=coverage,fuzzing", "--no-color"]
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
        env=os.environ | {"SCHEMATHESIS_HOOKS": f"{__package__}.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert httpx.get(f"{daemon.url}/readyz").status_code == 200


def test_every_operation_is_documented_with_its_responses_and_problems() -> None:
    paths = openapi_document()["paths"]
    for operation in OPERATIONS:
        documented = paths[operation.path][operation.method.lower()]
        assert documented["operationId"] == operation.name
        statuses = {str(status) for status in (*operation.responses, *operation.problems)}
        assert statuses <= documented["responses"].keys()
        assert ("requestBody" in documented) == (operation.body is not None)


def test_every_operation_states_its_scope_and_the_refusals_of_access_control() -> None:
    document = openapi_document()
    assert document["components"]["securitySchemes"].keys() == {"bearer", "certificate"}
    page = docs_page(document).decode()
    for operation in OPERATIONS:
        documented = document["paths"][operation.path][operation.method.lower()]
        assert documented["x-action"] == operation.action.value
        assert documented["x-scope"] in page
        assert (documented["security"] == []) == operation.is_public
        assert operation.is_public or "401" in documented["responses"]
    paths = document["paths"]
    assert {"401", "403"} <= paths["/api/v1/tokens"]["post"]["responses"].keys()
    assert "403" not in paths["/api/v1/caller"]["get"]["responses"]
    assert "401" not in paths["/healthz"]["get"]["responses"]
    assert paths["/api/v1/tokens"]["get"]["x-scope"] == "admin"
    assert paths["/api/v1/status"]["get"]["x-scope"] == "read:*"


@pytest.mark.parametrize("action", Action)
def test_every_action_has_a_scope_for_people(action: Action) -> None:
    assert required_scope(action)
    assert "{" not in required_scope(action)


def test_every_body_is_in_the_document() -> None:
    schemas = openapi_document()["components"]["schemas"]
    for kind in (wire.RegistrationBody, wire.CheckBody, wire.ServiceView, wire.InstanceView, wire.Problem):
        assert kind.__name__ in schemas
    assert schemas["RegistrationBody"]["additionalProperties"] is False


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_the_docs_page_is_self_contained(daemon: RunningDaemon, path: str) -> None:
    page = httpx.get(f"{daemon.url}{path}", follow_redirects=True)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for operation in OPERATIONS:
        assert f"id='{operation.name}'" in page.text
    assert "http://" not in page.text.replace(daemon.url, "")
    assert "<script" not in page.text
