"""Which nodes of a registry answer a gateway that is about to start."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from adsum.envoy.plan import SocketAddress
from adsum.envoy.registry_health.xds_health import responsive_nodes
from tests.envoy.ads_server import AdsServer


@pytest.fixture
def hung() -> Iterator[SocketAddress]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def _place(ads: AdsServer) -> SocketAddress:
    host, _, port = ads.address.rpartition(":")
    return host, int(port)


async def test_nodes_that_hang_or_are_away_do_not_answer(
    ads: AdsServer, hung: SocketAddress, port: Callable[[], int]
) -> None:
    away = ("127.0.0.1", port())
    assert await responsive_nodes([hung, away, _place(ads)]) == [_place(ads)]
    assert await responsive_nodes([hung, away]) == []


async def test_one_node_is_not_asked(hung: SocketAddress) -> None:
    assert await responsive_nodes([hung]) == [hung]
