from __future__ import annotations

import asyncio
import subprocess
import sys
from math import inf, nan
from pathlib import Path

import pytest

import adsum
from adsum.balance.picker import NoEndpoint
from adsum.client.calls.options import ChannelOptions
from adsum.client.client import UNUSED_CHANNEL_TIMEOUT, Client
from adsum.client.errors import NeedsRegistry
from adsum.core.errors import Invalid
from tests.client.fakes import ScriptedSource, endpoint, full_update
from tests.support.fakes import FakeClock, run_until_idle


def test_importing_adsum_is_quick_and_loads_neither_http_nor_asyncio() -> None:
    code = "import sys, adsum; print([name for name in ('httpx', 'asyncio', 'msgspec', 'ssl') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_can_be_imported() -> None:
    for name in dir(adsum):
        assert getattr(adsum, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Kubernetes'"):
        _ = adsum.Kubernetes  # type: ignore[attr-defined]


async def test_a_channel_is_the_same_for_the_same_options() -> None:
    async with Client(cache=False, zone="z1", source=ScriptedSource()) as client:
        channel = client.channel("orders", policy="round_robin")
        assert channel is client.channel("orders", ChannelOptions(policy="round_robin", zone="z1"))
        assert channel is not client.channel("orders")
        assert channel.resolver is client.channel("orders").resolver
        assert channel.options.zone == "z1"
        assert client.channel("orders", zone="").options.zone == ""
        with pytest.raises(TypeError):
            client.channel("orders", ChannelOptions(), policy="maglev")


async def test_the_registry_url_is_the_argument_then_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADSUM_URL", raising=False)
    assert Client().urls == ("http://127.0.0.1:23786",)
    monkeypatch.setenv("ADSUM_URL", "http://a:1,http://b:1")
    monkeypatch.setenv("ADSUM_ZONE", "z7")
    assert Client().urls == ("http://a:1", "http://b:1")
    assert Client().zone == "z7"
    assert Client("http://c:1").urls == ("http://c:1",)
    monkeypatch.setenv("ADSUM_URL", "nowhere")
    with pytest.raises(Invalid, match="ADSUM_URL"):
        Client()


@pytest.mark.parametrize("age", [-1.0, inf, nan])
async def test_an_invalid_cache_max_age_is_refused(age: float) -> None:
    with pytest.raises(Invalid, match="cache_max_age"):
        Client(cache_max_age=age)


@pytest.mark.parametrize("urls", ["ftp://a:1", "http://a:1,carrier-pigeon://b:1"])
def test_a_url_with_an_unknown_scheme_is_refused(urls: str) -> None:
    with pytest.raises(Invalid, match="urls: must begin with http://, https://"):
        Client(urls, cache=False)


async def test_closing_a_client_sends_one_goodbye_for_all_services() -> None:
    source = ScriptedSource()
    async with Client(cache=False, source=source) as client:
        client.channel("orders")
        client.channel("users")
        await client.resolver("users").close()
        assert client.resolver("users") is not client.channel("orders").resolver
        assert not client.resolver("users").closed, "a new request follows the service again"
    assert source.goodbyes == [["users"], ()]


async def test_a_service_is_no_longer_followed_when_its_last_channel_closes() -> None:
    source = ScriptedSource()
    async with Client(cache=False, source=source) as client:
        first, second = client.channel("orders"), client.channel("orders", policy="round_robin")
        await first.close()
        await first.close()
        assert source.goodbyes == []
        assert client.channel("orders") is not first, "a new request follows the service again"
        await client.channel("orders").close()
        await second.close()
        assert source.goodbyes == [["orders"]]
        assert second.resolver.closed
        users = client.channel("users")
        assert client.resolver("users") is users.resolver
        await users.close()
        assert not users.resolver.closed, "a user of the resolver keeps it open"
    assert source.goodbyes == [["orders"], ()]


async def test_an_on_demand_channel_without_instances_is_closed_after_a_while() -> None:
    source, clock = ScriptedSource(), FakeClock()
    async with Client(cache=False, source=source, clock=clock) as client:
        typo, picked, held, there = (client.on_demand_channel(name) for name in ("typo", "picked", "held", "there"))
        assert client.on_demand_channel("typo") is typo
        assert client.channel("held") is held
        for name in ("typo", "picked", "held"):
            source.emit(full_update(1), service=name)
        source.emit(full_update(1, endpoint("a")), service="there")
        for _ in range(4):
            await clock.advance(UNUSED_CHANNEL_TIMEOUT / 2 - 1.0)
            with pytest.raises(NoEndpoint):
                picked.pick()
        assert [channel.service for channel in (typo, picked, held, there) if channel.closed] == ["typo"]
        assert source.goodbyes == [["typo"]]
        assert source.open_watches == 3
        assert client.on_demand_channel("typo") is not typo, "a new request follows the service again"


async def test_a_channel_that_is_kept_open_is_not_closed_to_make_room() -> None:
    async with Client(cache=False, source=ScriptedSource()) as client:
        first, second = client.on_demand_channel("first"), client.on_demand_channel("second")
        first.close_soon()
        second.close_soon()
        assert client.channel("second") is second
        await run_until_idle()
        assert (first.closed, second.closed) == (True, False)


async def test_a_client_that_followed_nothing_sends_no_goodbye() -> None:
    source = ScriptedSource()
    async with Client(cache=False, source=source) as client:
        await client.register("orders", 8000).start()
    assert source.goodbyes == []


async def test_closing_leaves_no_task_behind(tmp_path: Path) -> None:
    source = ScriptedSource()
    async with Client(cache=tmp_path, source=source) as client:
        channel = client.channel("orders")
        source.emit(full_update(1, endpoint("a")))
        await channel.ready()
        await client.register("orders", 8000).start()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert source.open_watches == 0
    async with Client(cache=tmp_path, source=ScriptedSource()) as again:
        await again.channel("orders").ready()
        assert again.resolver("orders").view.origin == "disk"
        with pytest.raises(NeedsRegistry, match="is not an Adsum registry"):
            _ = again.api
