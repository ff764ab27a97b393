"""The library straight on etcd, without a registry: on a real one, through what happens to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from adsum.client.client import Client
from adsum.client.errors import NeedsRegistry
from adsum.client.resolver import Resolver
from adsum.client.sync import SyncClient
from adsum.core.errors import Invalid
from adsum.etcd.connection import Etcd as Connection
from adsum.etcd.place import Place
from adsum.etcd.values import KeyValue
from tests.etcds import Etcd

TTL = 3.0


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path) as etcd:
        yield etcd


async def until(true: Callable[[], object], patience: float = 40.0) -> None:
    """Return once it is."""
    async with asyncio.timeout(patience):
        while not true():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


def ids(resolver: Resolver) -> set[str]:
    return {endpoint.id for endpoint in resolver.view.endpoints}


def written(etcd: Etcd, key: str, value: bytes) -> None:
    """As a program of others' writes it."""
    request = b"".join(
        bytes([number << 3 | 2]) + _length(part) + part for number, part in ((1, key.encode()), (2, value))
    )
    etcd.call("KV/Put", request)


def _length(part: bytes) -> bytes:
    return bytes([len(part)]) if len(part) < 128 else bytes([len(part) & 0x7F | 0x80, len(part) >> 7])


async def _kept(etcd: Etcd, directory: bytes) -> KeyValue:
    """The only key of a directory."""
    connection = Connection(Place.parse(etcd.url), Random())
    try:
        (kept,) = (await connection.everything(directory)).found
    finally:
        await connection.close()
    return kept


async def test_go_programs_read_what_we_write_and_we_read_what_others_write(etcd: Etcd) -> None:
    async with Client(f"{etcd.url}?prefix=/svc/", cache=False) as client:
        resolver = client.resolver("orders")
        async with client.register("orders", 8001, address="10.0.0.1", id="o1", ttl=TTL, drain_wait=0.0):
            kept = await _kept(etcd, b"/svc/orders/")
            assert kept.key == b"/svc/orders/10.0.0.1:8001"
            said = json.loads(kept.value)
            assert (said["Op"], said["Addr"], said["Metadata"]) == (0, "10.0.0.1:8001", None)
            written(etcd, "/svc/orders/10.0.0.2:8002", b'{"Op":0,"Addr":"10.0.0.2:8002","Metadata":null}')
            written(etcd, "/svc/orders/deep/er", b'{"addr":"[fd00::1]:80"}')
            written(etcd, "/svc/orders/plain", b"10.0.0.3:8003")
            written(etcd, "/svc/orders/junk", b'{"Addr":7}')
            written(etcd, "/svc/orders-admin/x", b"10.0.0.9:1")
            await until(lambda: len(ids(resolver)) == 4)
            found = {each.authority for each in resolver.view.endpoints}
            assert found == {"10.0.0.1:8001", "10.0.0.2:8002", "10.0.0.3:8003", "[fd00::1]:80"}


async def test_a_registration_comes_back_by_itself_after_a_hang_a_crash_and_a_loss_of_everything(etcd: Etcd) -> None:
    async with Client(etcd.url, cache=False) as provider, Client(etcd.url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        async with provider.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
            await until(lambda: ids(resolver) == {"o1"})
            etcd.pause()
            await asyncio.sleep(2 * TTL)
            assert ids(resolver) == {"o1"}, "what is known stays while etcd says nothing"
            etcd.go_on()
            await until(lambda: resolver.connected and ids(resolver) == {"o1"})
            etcd.kill()
            await until(lambda: not resolver.connected)
            assert ids(resolver) == {"o1"}
            etcd.wipe()
            etcd.start()
            await until(lambda: resolver.connected)
            await until(lambda: ids(resolver) == {"o1"})


async def test_a_drain_takes_it_out_and_says_that_nobody_says_so(etcd: Etcd) -> None:
    async with Client(etcd.url, cache=False) as client:
        resolver = client.resolver("orders")
        registrar = client.register("orders", 8001, id="o1", ttl=TTL)
        await registrar.start(10.0)
        await until(lambda: ids(resolver) == {"o1"})
        drained = await registrar.drain(1.0)
        assert (drained.done, "none says" in drained.why) == (False, True)
        assert not ids(resolver)
        await asyncio.sleep(TTL)
        assert registrar.registered, "its renewals don't bring it back"
        assert not ids(resolver)
        await registrar.stop()


async def test_what_needs_a_registry_is_refused(etcd: Etcd) -> None:
    async with Client(etcd.url, cache=False) as client:
        with pytest.raises(Invalid, match="can't be run without a registry"):
            await client.register("orders", 8001, check="http:/health").start(10.0)
        with pytest.raises(NeedsRegistry, match="is no registry"):
            client.api  # noqa: B018


def test_a_program_without_a_loop_finds_it_too(etcd: Etcd) -> None:
    with SyncClient(etcd.url, cache=False) as client, client.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
        channel = client.channel("orders")
        channel.ready(20.0)
        assert channel.pick().endpoint.id == "o1"
