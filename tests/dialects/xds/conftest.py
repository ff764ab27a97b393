"""A registry as a process of its own, for tests with real clients: grpc and forks don't go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.processes import ScenarioRegistry, ScenarioSandbox


class RegistryProcess:
    """A registry on places that it keeps over restarts, with an empty memory each time."""

    def __init__(self, place: ScenarioSandbox) -> None:
        self.place = place
        self.xds = f"127.0.0.1:{place.port()}"

    async def start(self) -> ScenarioRegistry:
        """Ready, and with nothing in it."""
        return await self.place.start_registry("memory:", "--xds", self.xds)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    place = ScenarioSandbox(tmp_path)
    yield RegistryProcess(place)
    place.close()
