"""A registry in a process of its own, for tests with real clients: grpc and fork don't work together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.processes import ScenarioRegistry, ScenarioSandbox


class RegistryProcess:
    """A registry that keeps its addresses over restarts, and starts with an empty catalog each time."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = f"127.0.0.1:{sandbox.port()}"

    async def start(self) -> ScenarioRegistry:
        """Starts it, and returns when it is ready."""
        return await self.sandbox.start_registry("memory:", "--xds", self.xds)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    sandbox = ScenarioSandbox(tmp_path)
    yield RegistryProcess(sandbox)
    sandbox.close()
