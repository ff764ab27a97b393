"""Fixtures of all scenarios."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.scenarios.gateway_load import GatewayLoad
from tests.scenarios.processes import ScenarioSandbox
from tests.support.programs import need


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[ScenarioSandbox]:
    """A folder, ports and processes for this test alone."""
    found = ScenarioSandbox(tmp_path)
    yield found
    found.close()


@pytest.fixture
def envoy() -> None:
    """Skips the test if there is no Envoy."""
    need("envoy")


@pytest.fixture
async def gateway_load(sandbox: ScenarioSandbox, envoy: None) -> AsyncIterator[GatewayLoad]:
    """A gateway under load, not started yet, with a sandbox for its registry."""
    found = GatewayLoad(sandbox)
    yield found
    await found.http.aclose()
