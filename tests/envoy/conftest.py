"""Fixtures of gateways. Whatever a test leaves running is killed by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from adsum.run.port import claim_free_port
from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import GatewayAddresses, GatewayCommand, Start, UpstreamServer


@pytest.fixture
def port() -> Iterator[Callable[[], int]]:
    """Free ports, outside the range of outgoing connections."""
    claims = []

    def claim() -> int:
        claims.append(claim_free_port(Random()))
        return claims[-1].port

    yield claim
    for held in claims:
        held.release()


@pytest.fixture
def upstream(port: Callable[[], int]) -> Iterator[UpstreamServer]:
    running = UpstreamServer(port())
    yield running
    running.close()


@pytest.fixture
def ads(port: Callable[[], int], upstream: UpstreamServer) -> Iterator[AdsServer]:
    running = AdsServer(port(), upstream.port)
    yield running
    running.close()


@pytest.fixture
def addresses(port: Callable[[], int]) -> GatewayAddresses:
    return GatewayAddresses(port)


@pytest.fixture
def start(tmp_path: Path, ads: AdsServer, addresses: GatewayAddresses) -> Iterator[Start]:
    """Starts `adsum gateway *args`, configured by `ads`."""
    running: list[GatewayCommand] = []

    def start(*args: str, **environ: str) -> GatewayCommand:
        common = (
            "--listen",
            addresses.listen,
            "--monitor",
            addresses.monitor,
            "--xds",
            ads.address,
            "--concurrency",
            "2",
        )
        running.append(GatewayCommand(tmp_path, (*common, *args), environ))
        return running[-1]

    yield start
    for command in running:
        command.kill()
