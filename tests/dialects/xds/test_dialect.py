"""The xDS dialect of a node: where it listens, and when it does not."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from adsum.config.serve import ServeConfig
from adsum.core.errors import AdsumError, Invalid
from adsum.daemon import Daemon
from adsum.dialects.xds.settings import DEFAULT_XDS_LISTEN
from adsum.settings import OFF
from tests.support.registry_daemon import RunningDaemon

NODE: dict[str, Any] = {"listen": "127.0.0.1:0", "store": "memory:", "node": "n"}


async def test_a_taken_port_is_refused_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = Daemon(ServeConfig(**NODE, xds=f"127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(AdsumError, match=r"Address already in use; choose .* --xds HOST:PORT, .* --xds off"):
            await daemon.start()
        await daemon.stop()


def test_two_nodes_listen_on_ports_of_their_own() -> None:
    nodes = [RunningDaemon(ServeConfig(**NODE, xds="127.0.0.1:0")) for _ in range(2)]
    assert len({node.xds for node in nodes}) == 2
    for node in nodes:
        node.stop()


def test_a_node_with_xds_off_does_not_listen_for_it_and_loads_none_of_its_libraries() -> None:
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


@pytest.mark.parametrize("address", [DEFAULT_XDS_LISTEN, "127.0.0.1:1234"])
async def test_missing_libraries_are_an_error_only_if_an_address_was_configured(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "adsum.dialects.xds.xds", None)
    config = ServeConfig(**NODE, xds=address)
    if address == DEFAULT_XDS_LISTEN:
        daemon = Daemon(config)
        await daemon.start()
        assert daemon.xds == ""
        await daemon.stop()
    else:
        with pytest.raises(AdsumError, match="--xds needs grpcio and xds-protos"):
            Daemon(config)


def test_an_address_is_checked_when_the_settings_are_read() -> None:
    assert ServeConfig(xds=OFF).xds == OFF
    with pytest.raises(Invalid, match="xds"):
        ServeConfig(xds="everywhere")
