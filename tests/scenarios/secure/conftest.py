"""Fixtures of the scenarios of a secure registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.processes import ScenarioSandbox
from tests.support.network_namespaces import PrivateNetwork, network


@pytest.fixture
def private_network(tmp_path: Path) -> Iterator[PrivateNetwork]:
    """A network without hosts. It ends after the programs of the sandbox."""
    folder = tmp_path / "network"
    folder.mkdir()
    with network(folder) as opened:
        yield opened


@pytest.fixture
def sandbox(private_network: PrivateNetwork, tmp_path: Path) -> Iterator[ScenarioSandbox]:
    """A folder and processes for this test alone."""
    found = ScenarioSandbox(tmp_path)
    yield found
    found.close()
