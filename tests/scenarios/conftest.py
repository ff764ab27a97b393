"""What every scenario starts with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.scenarios.gateway_load import GatewayLoad
from tests.scenarios.processes import ScenarioSandbox
from tests.support.programs import need


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ScenarioSandbox]:
    """A folder, ports and processes of this test's own."""
    found = ScenarioSandbox(tmp_path)
    yield found
    found.close()


@pytest.fixture
def envoy() -> None:
    """There is one, or the test is skipped."""
    need("envoy")


@pytest.fixture
async def door(place: ScenarioSandbox, envoy: None) -> AsyncIterator[GatewayLoad]:
    """A gateway to be, with its registry's place."""
    found = GatewayLoad(place)
    yield found
    await found.http.aclose()
