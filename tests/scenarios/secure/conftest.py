"""Fixtures of the scenarios of a secure registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.processes import ScenarioSandbox
from tests.support.network_namespaces import PrivateNetwork, network


@pytest.fixture
def private_network(sandbox: ScenarioSandbox, tmp_path: Path) -> Iterator[PrivateNetwork]:
    """A network without hosts."""
    folder = tmp_path / "network"
    folder.mkdir()
    with network(folder) as opened:
        yield opened
        sandbox.close()  # The programs end before their hosts.
