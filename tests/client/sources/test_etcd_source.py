"""The client on a real etcd, without a registry, through failures of etcd."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from adsum.client.client import Client
from adsum.client.errors import NeedsRegistry
from adsum.client.registration.registrar_state import RegistrarState
from adsum.client.sources import etcd as etcd_source
from adsum.client.sources.source import ConnectionLost, ServiceUpdate
from adsum.client.sync import SyncClient
from adsum.client.views.resolver import Resolver
from adsum.client.views.view_state import ViewState
from adsum.clock import SystemClock
from adsum.core.errors import Invalid
from adsum.etcd import watch
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.values import Header, KeyValue, RangeResult
from adsum.etcd.watch import EtcdWatchEvent, KeyEvent, ResyncRequired, RevisionEvents, WatchInterrupted, WatchProgress
from tests.client.fakes import ids
from tests.client.stub_node import until
from tests.support.etcd_process import EtcdProcess
from tests.support.fake_etcd import FakeEtcd

TTL = 3.0


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as etcd:
        yield etcd


def write_key(etcd: EtcdProcess, key: str, value: bytes) -> None:
    """Writes a key as another program would."""
    etcd.call("KV/Put", _fields(key.encode(), value))


def _fields(*parts: bytes) -> bytes:
    """Returns a protobuf message of strings, numbered from 1."""
    return b"".join(bytes([number << 3 | 2]) + _length(part) + part for number, part in enumerate(parts, 1))


def _length(part: bytes) -> bytes:
    return bytes([len(part)]) if len(part) < 128 else bytes([len(part) & 0x7F | 0x80, len(part) >> 7])


async def _only_key(etcd: EtcdProcess, directory: bytes) -> KeyValue:
    """Returns the only key of a directory."""
    connection = EtcdClient(EtcdAddress.parse(etcd.url), Random())
    try:
        (kept,) = (await connection.read_all(directory)).key_values
    finally:
        await connection.close()
    return kept


async def test_instances_are_keys_in_the_format_of_other_programs(etcd: EtcdProcess) -> None:
    async with Client(f"{etcd.url}?prefix=/svc/", cache=False) as client:
        resolver = client.resolver("orders")
        async with client.register("orders", 8001, address="10.0.0.1", id="o1", ttl=TTL, drain_wait=0.0):
            kept = await _only_key(etcd, b"/svc/orders/")
            assert kept.key == b"/svc/orders/10.0.0.1:8001"
            value = json.loads(kept.value)
            assert (value["Op"], value["Addr"], value["Metadata"]) == (0, "10.0.0.1:8001", None)
            write_key(etcd, "/svc/orders/10.0.0.2:8002", b'{"Op":0,"Addr":"10.0.0.2:8002","Metadata":null}')
            write_key(etcd, "/svc/orders/deep/er", b'{"addr":"[fd00::1]:80"}')
            write_key(etcd, "/svc/orders/plain", b"10.0.0.3:8003")
            write_key(etcd, "/svc/orders/junk", b'{"Addr":7}')
            write_key(etcd, "/svc/orders-admin/x", b"10.0.0.9:1")
            await until(lambda: len(ids(resolver)) == 4)
            found = {endpoint.authority for endpoint in resolver.view.endpoints}
            assert found == {"10.0.0.1:8001", "10.0.0.2:8002", "10.0.0.3:8003", "[fd00::1]:80"}


async def test_an_instance_is_registered_again_after_etcd_hangs_crashes_and_loses_everything(
    etcd: EtcdProcess,
) -> None:
    async with Client(etcd.url, cache=False) as provider, Client(etcd.url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        async with provider.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
            await until(lambda: ids(resolver) == {"o1"})
            etcd.pause()
            await asyncio.sleep(2 * TTL)
            assert ids(resolver) == {"o1"}, "the view stays while etcd is silent"
            etcd.resume()
            await until(lambda: resolver.connected and ids(resolver) == {"o1"})
            etcd.kill()
            await until(lambda: not resolver.connected)
            assert ids(resolver) == {"o1"}
            etcd.wipe()
            etcd.start()
            await until(lambda: resolver.connected)
            await until(lambda: ids(resolver) == {"o1"})


async def test_a_drain_removes_the_instance_and_reports_that_it_is_unacknowledged(etcd: EtcdProcess) -> None:
    async with Client(etcd.url, cache=False) as client:
        resolver = client.resolver("orders")
        registrar = client.register("orders", 8001, id="o1", ttl=TTL)
        await registrar.start(10.0)
        await until(lambda: ids(resolver) == {"o1"})
        drained = await registrar.drain(1.0)
        assert (drained.done, "none can acknowledge" in drained.reason) == (False, True)
        assert not ids(resolver)
        await asyncio.sleep(TTL)
        assert registrar.registered, "renewals do not bring the instance back"
        assert not ids(resolver)
        await registrar.stop()


async def test_checks_and_the_api_need_a_registry(etcd: EtcdProcess) -> None:
    async with Client(etcd.url, cache=False) as client:
        with pytest.raises(Invalid, match="can't be run without a registry"):
            await client.register("orders", 8001, check="http:/health").start(10.0)
        with pytest.raises(NeedsRegistry, match="is not an Adsum registry"):
            client.api  # noqa: B018


def test_a_sync_client_works_on_etcd(etcd: EtcdProcess) -> None:
    with SyncClient(etcd.url, cache=False) as client, client.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
        channel = client.channel("orders")
        channel.ready(20.0)
        assert channel.pick().endpoint.id == "o1"


async def test_many_registrars_and_resolvers_beside_many_writes_are_one_history(
    etcd: EtcdProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "adsum")
    renewals = 0
    renew = etcd_source.EtcdSource.renew

    async def counted(self: etcd_source.EtcdSource, *arguments: Any) -> Any:
        nonlocal renewals
        renewed = await renew(self, *arguments)
        renewals += 1
        return renewed

    monkeypatch.setattr(etcd_source.EtcdSource, "renew", counted)
    other = EtcdClient(EtcdAddress.parse(etcd.url), Random())

    async def write() -> None:
        while True:
            await other.put(b"/elsewhere", b"")

    async with Client(etcd.url, cache=False) as client:
        registrars = [client.register(f"s{n % 10}", 8000 + n, id=f"i{n}", ttl=TTL, drain_wait=0.0) for n in range(100)]
        resolvers = [client.resolver(f"s{n}") for n in range(10)]
        writing = asyncio.create_task(write())
        await asyncio.gather(*(registrar.start(20.0) for registrar in registrars))
        await until(lambda: renewals >= 4 and all(len(ids(resolver)) == 10 for resolver in resolvers))
        assert {resolver.view.epoch.partition("-")[2] for resolver in resolvers} == {"0"}
        writing.cancel()
        await asyncio.gather(*(registrar.stop() for registrar in registrars))
        await until(lambda: not any(ids(resolver) for resolver in resolvers))
    await other.close()
    assert not caplog.messages


async def test_a_cached_view_survives_an_etcd_that_lost_everything(etcd: EtcdProcess, tmp_path: Path) -> None:
    for n in range(20):
        write_key(etcd, "orders/10.0.0.1:80", b'{"Addr":"10.0.0.1:80","Adsum":{"id":"o%d"}}' % n)
    async with Client(etcd.url, cache=tmp_path / "views") as client:
        resolver = client.resolver("orders")
        await until(lambda: ids(resolver) == {"o19"})
    etcd.kill()
    etcd.wipe()
    etcd.start()
    etcd.wait()
    async with Client(etcd.url, cache=tmp_path / "views") as client:
        resolver = client.resolver("orders")
        await until(lambda: resolver.connected)
        assert not resolver.problem
        write_key(etcd, "orders/10.0.0.2:80", b'{"Addr":"10.0.0.2:80","Adsum":{"id":"new"}}')
        await until(lambda: ids(resolver) == {"o19", "new"})


async def test_registration_and_watch_survive_expiring_auth_tokens(tmp_path: Path) -> None:
    with EtcdProcess(tmp_path, "--auth-token", "simple", "--auth-token-ttl", "2") as etcd:
        for method, *fields in (("UserAdd", "root", "s3cret"), ("RoleAdd", "root"), ("UserGrantRole", "root", "root")):
            etcd.call(f"Auth/{method}", _fields(*(field.encode() for field in fields)))
        etcd.call("Auth/AuthEnable", b"")
        url = etcd.url.replace("://", "://root:s3cret@")
        ttl = 9.0  # Renewed every 3 s, each time with a token that has expired.
        async with Client(url, cache=False) as provider, Client(url, cache=False) as consumer:
            resolver = consumer.resolver("orders")
            async with provider.register("orders", 8001, id="o1", ttl=ttl, drain_wait=0.0) as registrar:
                await until(lambda: ids(resolver) == {"o1"})
                seen = set[frozenset[str]]()
                resolver.subscribe(lambda view: seen.add(frozenset(endpoint.id for endpoint in view.endpoints)))
                await asyncio.sleep(1.5 * ttl)
                assert seen == {frozenset({"o1"})}
                assert registrar.registered
                etcd.kill()  # The tokens are lost with it.
                await until(lambda: not resolver.connected)
                etcd.start()
                await until(lambda: resolver.connected and ids(resolver) == {"o1"})
            await until(lambda: not ids(resolver))


class ScriptedEtcdSource:
    """Replaces the etcd client by scripted answers to reads and watches."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *connections: tuple[RangeResult, Sequence[EtcdWatchEvent]]
    ) -> None:
        self._connections = list(connections)
        monkeypatch.setattr(EtcdClient, "read_all", self._read_all)
        monkeypatch.setattr(etcd_source, "watch", self._watch)
        monkeypatch.setattr(etcd_source, "REFRESH_INTERVAL", 0.0)
        monkeypatch.setattr(etcd_source, "MIN_RECONNECT_PAUSE", 0.001)
        self.source = etcd_source.EtcdSource(["etcd://h"], actor="", clock=SystemClock(), rng=Random(1))

    async def _read_all(self, prefix: bytes) -> RangeResult:
        assert prefix == b"orders/"
        return self._connections[0][0]

    async def _watch(self, *_: object) -> AsyncGenerator[EtcdWatchEvent, None]:
        for event in self._connections.pop(0)[1]:
            yield event

    async def events(self) -> list[ServiceUpdate | ConnectionLost]:
        """Returns every event until the script ends."""
        events = []
        async with aclosing(self.source.watch("orders", lambda: None)) as stream:
            async for event in stream:
                events.append(event)
                if not self._connections and isinstance(event, ConnectionLost):
                    break
        return events


def _header(revision: int) -> Header:
    return Header(7, 1, revision, 1)


def _put(revision: int, id: str) -> KeyValue:
    return KeyValue(f"orders/{id}".encode(), b'{"Addr":"10.0.0.1:80","Adsum":{"id":"%s"}}' % id.encode(), revision)


def _change(revision: int, id: str) -> RevisionEvents:
    put = _put(revision, id)
    return RevisionEvents(revision, (KeyEvent(put.key, put),))


async def test_a_change_that_a_progress_answer_overtook_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[EtcdWatchEvent] = [
        WatchProgress(_header(20)),
        _change(12, "b"),
        WatchProgress(_header(30)),
        WatchProgress(_header(25)),
        _change(21, "c"),
        WatchInterrupted("over"),
    ]
    scripted = ScriptedEtcdSource(monkeypatch, (RangeResult(_header(10), (_put(9, "a"),)), events))
    state = ViewState()
    for event in await scripted.events():
        if isinstance(event, ServiceUpdate):
            state.apply(event, 0.0)
    assert [endpoint.id for endpoint in state.endpoints] == ["a", "b", "c"]
    assert state.position == ("7-0", 21)


async def test_an_etcd_whose_revision_went_back_behind_a_progress_answer_is_another_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writes to other keys count too, though the service has no change."""
    scripted = ScriptedEtcdSource(
        monkeypatch,
        (RangeResult(_header(10), (_put(9, "a"),)), [WatchProgress(_header(500)), ResyncRequired("wiped or restored")]),
        (RangeResult(_header(300), (_put(9, "a"),)), [WatchInterrupted("over")]),
    )
    updates = [event for event in await scripted.events() if isinstance(event, ServiceUpdate)]
    assert [update.position for update in updates] == [("7-0", 10), ("7-0", 10), ("7-1", 300)]


async def test_an_idle_etcd_is_never_lost(each_etcd: EtcdProcess | FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers progress requests within the time after which it would count as hung."""
    monkeypatch.setattr(etcd_source, "REFRESH_INTERVAL", 0.0)
    monkeypatch.setattr(watch, "PROGRESS_INTERVAL", 0.1)
    each_etcd.put(b"orders/10.0.0.1:80", b'{"Addr":"10.0.0.1:80"}')
    source = etcd_source.EtcdSource([each_etcd.url], actor="", clock=SystemClock(), rng=Random(1))
    events = []
    async with asyncio.timeout(20.0), aclosing(source.watch("orders", lambda: None)) as stream:
        async for event in stream:
            events.append(event)
            if len(events) == 5:
                break
    await source.close()
    assert [type(event) for event in events] == [ServiceUpdate] * 5


async def test_a_service_in_an_etcd_that_was_wiped_or_restored_is_another_history(
    each_etcd: EtcdProcess | FakeEtcd,
) -> None:
    async with Client(each_etcd.url, cache=False) as provider, Client(each_etcd.url, cache=False) as consumer:
        resolver = consumer.resolver("orders")
        each_etcd.put(b"orders/10.0.0.1:80", b'{"Addr":"10.0.0.1:80","Adsum":{"id":"before"}}')
        await until(lambda: ids(resolver) == {"before"})
        each_etcd.kill()
        each_etcd.save()
        each_etcd.start()
        async with provider.register("orders", 8001, id="o1", ttl=TTL, drain_wait=0.0):
            for number, lose in enumerate((each_etcd.wipe, each_etcd.restore), 1):
                await until(lambda: resolver.connected and "o1" in ids(resolver))
                for _ in range(9):
                    each_etcd.put(b"orders/10.0.0.2:80", b'{"Addr":"10.0.0.2:80","Adsum":{"id":"moving"}}')
                last = b'{"Addr":"10.0.0.2:80","Adsum":{"id":"last%d"}}' % number
                each_etcd.put(b"orders/10.0.0.2:80", last)
                await until(partial(_is_listed, resolver, f"last{number}"))
                each_etcd.kill()
                await until(lambda: not resolver.connected)
                lose()
                each_etcd.start()
                await until(partial(_is_history, resolver, number))
                await until(lambda: resolver.connected and "o1" in ids(resolver))


def _is_listed(resolver: Resolver, id: str) -> bool:
    return id in ids(resolver)


def _is_history(resolver: Resolver, number: int) -> bool:
    return resolver.view.epoch.endswith(f"-{number}")


async def test_of_two_keys_with_one_id_the_one_that_was_written_last_is_shown(etcd: EtcdProcess) -> None:
    async with Client(etcd.url, cache=False) as client:
        resolver = client.resolver("orders")
        for port in (80, 82, 81):
            write_key(etcd, f"orders/10.0.0.1:{port}", b'{"Addr":"10.0.0.1:%d","Adsum":{"id":"o1"}}' % port)
            await until(partial(_is_at, resolver, port))


def _is_at(resolver: Resolver, port: int) -> bool:
    return [endpoint.port for endpoint in resolver.view.endpoints] == [port]


async def test_two_ids_of_one_program_at_one_address_never_alternate(etcd: EtcdProcess) -> None:
    """A key is made of the address, so it has room for one instance."""
    async with Client(etcd.url, cache=False) as client:
        resolver = client.resolver("orders")
        first = client.register("orders", 8001, id="a", address="10.0.0.1", ttl=2.0, drain_wait=0.0)
        second = client.register("orders", 8001, id="b", address="10.0.0.1", ttl=2.0, drain_wait=0.0)
        await first.start(10.0)
        await second.start(10.0)
        await until(lambda: first.state is RegistrarState.WAITING and bool(first.conflict))
        await until(lambda: {endpoint.id for endpoint in resolver.view.endpoints} == {"b"})
        await second.stop()
        await until(lambda: {endpoint.id for endpoint in resolver.view.endpoints} == {"a"})
        await first.stop()


async def test_a_registrar_that_loses_its_id_waits_and_is_listed_again_when_it_is_free(
    etcd: EtcdProcess,
) -> None:
    async with Client(etcd.url, cache=False) as one, Client(etcd.url, cache=False) as other:
        resolver = one.resolver("orders")
        loser = one.register("orders", 8001, id="o1", address="127.0.0.1", ttl=TTL, drain_wait=0.0)
        winner = other.register("orders", 8002, id="o1", address="127.0.0.1", ttl=TTL, drain_wait=0.0, take_over=True)
        await loser.start(10.0)
        await winner.start(10.0)
        # The renewal finds the lease alive, and another process's key.
        await until(lambda: loser.state is RegistrarState.WAITING and "127.0.0.1:8002" in loser.conflict)
        await until(lambda: _is_at(resolver, 8002))
        await winner.stop()
        await until(lambda: _is_at(resolver, 8001))
        await loser.stop()
