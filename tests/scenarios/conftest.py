"""What every scenario starts with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.processes import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A folder, ports and processes of this test's own."""
    found = Place(tmp_path)
    yield found
    found.clear()
