"""The registry nodes that answer a gateway that is about to start."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from adsum.envoy.plan import SocketAddress
from adsum.envoy.registry_health.xds_health import responsive_nodes
from tests.envoy.ads_server import AdsServer


@pytest.fixture
def hung_node() -> Iterator[SocketAddress]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def _address(ads: AdsServer) -> SocketAddress:
    host, _, port = ads.address.rpartition(":")
    return host, int(port)


async def test_hung_or_absent_nodes_are_not_responsive(
    ads: AdsServer, hung_node: SocketAddress, port: Callable[[], int]
) -> None:
    absent = ("127.0.0.1", port())
    assert await responsive_nodes([hung_node, absent, _address(ads)]) == [_address(ads)]
    assert await responsive_nodes([hung_node, absent]) == []


async def test_a_single_node_is_not_checked(hung_node: SocketAddress) -> None:
    assert await responsive_nodes([hung_node]) == [hung_node]
