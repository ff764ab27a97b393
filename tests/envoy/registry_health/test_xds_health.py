"""Which nodes of a registry answer a gateway that is about to start."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from adsum.envoy.plan import Place
from adsum.envoy.registry_health.xds_health import answering
from tests.envoy.ads_server import Ads


@pytest.fixture
def hung() -> Iterator[Place]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def _place(ads: Ads) -> Place:
    host, _, port = ads.place.rpartition(":")
    return host, int(port)


async def test_nodes_that_hang_or_are_away_do_not_answer(ads: Ads, hung: Place, port: Callable[[], int]) -> None:
    away = ("127.0.0.1", port())
    assert await answering([hung, away, _place(ads)]) == [_place(ads)]
    assert await answering([hung, away]) == []


async def test_one_node_is_not_asked(hung: Place) -> None:
    assert await answering([hung]) == [hung]
