"""A registry as a process of its own, for tests with real clients: grpc and forks don't go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.processes import Node, Place


class Registry:
    """A registry on places that it keeps over restarts, with an empty memory each time."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.xds = f"127.0.0.1:{place.port()}"

    async def start(self) -> Node:
        """Ready, and with nothing in it."""
        return await self.place.serve("memory:", "--xds", self.xds)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    place = Place(tmp_path)
    yield Registry(place)
    place.clear()
