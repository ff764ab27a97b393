"""The control plane as part of a node: where it listens, and when it does not."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from adsum.clock import SystemClock
from adsum.config.addresses import DEFAULT_XDS_LISTEN
from adsum.config.serve import ServeConfig
from adsum.control import ControlPlane
from adsum.core.errors import AdsumError, Invalid
from adsum.daemon import Daemon
from adsum.settings import OFF
from tests.support.registry_daemon import RunningDaemon

ALONE: dict[str, Any] = {"listen": "127.0.0.1:0", "store": "memory:", "node": "n"}


async def test_a_taken_port_is_refused_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = Daemon(ServeConfig(**ALONE, xds=f"127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(AdsumError, match=r"Address already in use; --xds HOST:PORT tells .* elsewhere, --xds off"):
            await daemon.start()
        await daemon.stop()


def test_two_nodes_live_side_by_side_on_ports_of_their_own() -> None:
    nodes = [RunningDaemon(ServeConfig(**ALONE, xds="127.0.0.1:0")) for _ in range(2)]
    assert len({node.xds for node in nodes}) == 2
    for node in nodes:
        node.stop()


def test_a_node_without_gateways_listens_nowhere_and_loads_nothing_for_them() -> None:
    program = """
import asyncio, sys
from adsum.config.serve import ServeConfig
from adsum.daemon import Daemon
async def main():
    daemon = Daemon(ServeConfig(listen="127.0.0.1:0", store="memory:", node="n", xds="off"))
    await daemon.start()
    assert daemon.xds == "" and daemon.status().gateways == []
    await daemon.stop()
asyncio.run(main())
sys.exit([name for name in ("grpc", "google.protobuf", "envoy") if name in sys.modules] or 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60.0)


@pytest.mark.parametrize("place", [DEFAULT_XDS_LISTEN, "127.0.0.1:1234"])
async def test_missing_libraries_matter_only_to_those_who_ask(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adsum.gateway.resources.compiled_resources", None)

    def control() -> ControlPlane:
        return ControlPlane(place, None, SystemClock(), None, connections=10, intent=None, refusal=None)  # type: ignore[arg-type]

    if place == DEFAULT_XDS_LISTEN:
        await control().start()
        assert control().address == ""
    else:
        with pytest.raises(AdsumError, match="--xds needs grpcio and xds-protos"):
            control()


def test_a_place_is_checked_when_it_is_read() -> None:
    assert ServeConfig(xds=OFF).xds == OFF
    with pytest.raises(Invalid, match="xds"):
        ServeConfig(xds="everywhere")
