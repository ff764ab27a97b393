"""What every scenario starts with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.scenarios.gateway_load import Door
from tests.scenarios.processes import Place
from tests.support.programs import need


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder, ports and processes of this test's own."""
    found = Place(tmp_path)
    yield found
    found.clear()


@pytest.fixture
def envoy() -> None:
    """There is one, or the test is skipped."""
    need("envoy")


@pytest.fixture
async def door(place: Place, envoy: None) -> AsyncIterator[Door]:
    """A gateway to be, with its registry's place."""
    found = Door(place)
    yield found
    await found.http.aclose()
