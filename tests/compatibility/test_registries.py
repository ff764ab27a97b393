"""Programs with today's client library use registries of earlier releases."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from adsum import Client
from adsum.run.port import claim_free_port
from tests.compatibility.archive import CLIENTS
from tests.scenarios.processes import ScenarioProcess

RELEASES = sorted(CLIENTS.glob("*.whl"))


@pytest.fixture(params=RELEASES, ids=lambda release: release.name)
async def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a running registry of an earlier release."""
    library = tmp_path / "library"
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(library)
    port = claim_free_port(Random())
    options = ("--listen", f"127.0.0.1:{port.port}", "--xds", "off", "--store", "memory:")
    argv = [sys.executable, "-m", "adsum", "serve", *options]
    process = ScenarioProcess("earlier", argv, tmp_path, PYTHONPATH=str(library))
    try:
        await process.wait_for_output("listens on")
        yield f"http://127.0.0.1:{port.port}"
    finally:
        process.kill()
        port.release()


async def test_a_program_follows_several_services_at_a_registry_that_lets_none_join(registry_url: str) -> None:
    async with Client(registry_url, cache=False) as consumer, Client(registry_url, cache=False) as provider:
        first = [consumer.channel(name) for name in ("orders", "users")]
        providers = [provider.register(name, 8000, address="127.0.0.1", ttl=30) for name in ("orders", "users", "mail")]
        async with providers[0] as orders, providers[1], providers[2]:
            for channel in first:
                await channel.ready(timeout=20)
            late = consumer.channel("mail")
            await late.ready(timeout=20)
            drained = await orders.drain(10)
            assert drained.done
            assert not drained.waiting
            assert [endpoint.port for endpoint in first[1].resolver.view.endpoints] == [8000]
        async with asyncio.timeout(20):
            async for view in consumer.resolver("users").watch():
                if not view.endpoints:
                    break
