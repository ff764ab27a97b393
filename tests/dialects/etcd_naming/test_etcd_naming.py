"""etcd's gRPC naming: the catalog's instances are published as keys, and instances with keys of others are listed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from adsum.core.instance_texts import MAX_METADATA
from adsum.dialects.etcd_naming.etcd_naming import LEASE_TTL
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.values import Delete, Operation, Put
from tests.support.etcd_process import EtcdProcess
from tests.support.fake_etcd import FakeEtcd
from tests.support.registry_daemon import RunningDaemon


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as etcd:
        yield etcd


def serve(naming: str, store: str = "memory:") -> RunningDaemon:
    config = ServeConfig(listen="127.0.0.1:0", xds="off", store=store, node="n1", etcd_naming=naming)
    return RunningDaemon(config)


def commit(etcd: EtcdProcess, *operations: Operation) -> None:
    """Commits operations as another program."""

    async def work() -> None:
        connection = EtcdClient(EtcdAddress.parse(etcd.url), Random())
        try:
            await connection.commit((), operations)
        finally:
            await connection.close()

    asyncio.run(work())


def keys_below(etcd: EtcdProcess | FakeEtcd, prefix: str) -> dict[str, Any]:
    """Returns every key below a prefix, with its decoded value."""

    async def work() -> dict[str, Any]:
        connection = EtcdClient(EtcdAddress.parse(etcd.url), Random())
        try:
            found = await connection.read_all(prefix.encode())
        finally:
            await connection.close()
        return {entry.key.decode(): json.loads(entry.value) for entry in found.key_values}

    return asyncio.run(work())


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20.0
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listed(daemon: RunningDaemon, service: str) -> dict[str, Any]:
    return {
        instance["id"]: instance
        for instance in httpx.get(f"{daemon.url}/api/v1/services/{service}").json()["instances"]
    }


def drain(daemon: RunningDaemon, id: str, wait: float) -> int:
    """Drains an instance, and returns how many consumers have not acknowledged when the request returns."""
    override = f"{daemon.url}/api/v1/services/orders/instances/{id}/override"
    result = httpx.put(override, json={"status": "draining", "wait": wait}, timeout=30.0).raise_for_status().json()
    return int(result.get("unacknowledged", 0))


def last_reason(daemon: RunningDaemon, id: str) -> str:
    """Returns the reason of the newest change."""
    changes = httpx.get(f"{daemon.url}/api/v1/changes", params={"id": id}).json()["changes"]
    return str(max(changes, key=lambda change: change["revision"])["reason"])


def register(daemon: RunningDaemon, service: str, id: str, port: int) -> None:
    url = f"{daemon.url}/api/v1/services/{service}/instances/{id}"
    httpx.put(url, json={"address": "10.0.0.1", "port": port, "ttl": None}).raise_for_status()


def test_usable_instances_are_keys_in_etcd_and_no_others(etcd: EtcdProcess) -> None:
    daemon = serve(f"{etcd.url}?prefix=/svc/")
    try:
        register(daemon, "orders", "o1", 1)
        register(daemon, "orders", "o2", 2)
        until(lambda: keys_below(etcd, "/svc/").keys() == {"/svc/orders/10.0.0.1:1", "/svc/orders/10.0.0.1:2"})
        value = keys_below(etcd, "/svc/")["/svc/orders/10.0.0.1:1"]
        assert (value["Op"], value["Addr"], value["Metadata"]) == (0, "10.0.0.1:1", None)
        override = f"{daemon.url}/api/v1/services/orders/instances/o1/override"
        httpx.put(override, json={"status": "draining"}).raise_for_status()
        until(lambda: keys_below(etcd, "/svc/").keys() == {"/svc/orders/10.0.0.1:2"})
        httpx.delete(override).raise_for_status()
        register(daemon, "orders", "o2", 3)
        until(lambda: keys_below(etcd, "/svc/").keys() == {"/svc/orders/10.0.0.1:1", "/svc/orders/10.0.0.1:3"})
        assert listed(daemon, "orders").keys() == {"o1", "o2"}, "published keys are not listed"
    finally:
        daemon.stop()
    assert len(keys_below(etcd, "/svc/")) == 2, "resolvers keep their instances while the registry restarts"
    daemon = serve(f"{etcd.url}?prefix=/svc/")  # A registry that starts with an empty catalog takes the keys over.
    try:
        register(daemon, "orders", "o9", 9)
        until(lambda: keys_below(etcd, "/svc/").keys() == {"/svc/orders/10.0.0.1:9"})
    finally:
        daemon.stop()


def test_a_drain_returns_when_the_key_is_gone_and_reports_when_it_is_not(etcd: EtcdProcess) -> None:
    daemon = serve(f"{etcd.url}?prefix=/svc/")
    try:
        for number in range(1, 4):
            register(daemon, "orders", f"o{number}", number)
        until(lambda: len(keys_below(etcd, "/svc/")) == 3)
        assert drain(daemon, "o1", 20.0) == 0
        assert keys_below(etcd, "/svc/").keys() == {"/svc/orders/10.0.0.1:2", "/svc/orders/10.0.0.1:3"}
        etcd.kill()
        assert drain(daemon, "o2", 0.5) == 1
        etcd.start()
        etcd.wait()
        assert drain(daemon, "o3", 20.0) == 0
        assert keys_below(etcd, "/svc/") == {}
    finally:
        daemon.stop()


def test_an_external_instance_is_listed_with_its_origin_until_its_key_is_gone(etcd: EtcdProcess) -> None:
    store = f"{etcd.url}?prefix=/adsum/"
    daemon = serve("/svc/", store)
    try:
        register(daemon, "orders", "taken", 1)
        commit(
            etcd,
            Put(b"/svc/orders/10.0.0.2:80", b'{"Op":0,"Addr":"10.0.0.2:80","Metadata":null}'),
            Put(b"/svc/orders/x", b'{"Addr":"10.0.0.3:80","Adsum":{"id":"taken"}}'),
        )
        until(lambda: "10.0.0.2:80" in listed(daemon, "orders"))
        found = listed(daemon, "orders")
        assert found["10.0.0.2:80"]["metadata"] == {"origin": "etcd-naming"}
        assert found.keys() == {"taken", "10.0.0.2:80"}
        assert found["taken"]["address"] == "10.0.0.1", "an instance that registered with the registry is not replaced"
        assert keys_below(etcd, "/svc/orders/").keys() == {
            "/svc/orders/10.0.0.1:1",
            "/svc/orders/10.0.0.2:80",
            "/svc/orders/x",
        }, "external instances are not published"
        changes = httpx.get(f"{daemon.url}/api/v1/changes", params={"id": "10.0.0.2:80"}).json()["changes"]
        assert [(change["cause"], change["actor"]) for change in changes] == [("registered", "etcd-naming")]
        commit(etcd, Delete(b"/svc/orders/10.0.0.2:80"))
        until(lambda: listed(daemon, "orders").keys() == {"taken"})
        assert last_reason(daemon, "10.0.0.2:80") == "its key in etcd is gone"
        commit(etcd, Put(b"/svc/orders/10.0.0.6:80", b'{"Addr":"10.0.0.6:80"}'))
        until(lambda: listed(daemon, "orders").keys() == {"taken", "10.0.0.6:80"})
        body = {"address": "10.0.0.6", "port": 80, "ttl": None}
        httpx.put(f"{daemon.url}/api/v1/services/orders/instances/o6", json=body).raise_for_status()
        until(lambda: listed(daemon, "orders").keys() == {"taken", "o6"})
        assert last_reason(daemon, "10.0.0.6:80") == "registered with the registry as well"
        httpx.delete(f"{daemon.url}/api/v1/services/orders/instances/o6").raise_for_status()
        commit(etcd, Delete(b"/svc/orders/10.0.0.6:80"))
        until(lambda: listed(daemon, "orders").keys() == {"taken"})
    finally:
        daemon.stop()
    commit(etcd, Put(b"/svc/orders/y", b"10.0.0.5:80"))
    daemon = serve("/svc/", store)  # Changes during its absence are applied.
    try:
        until(lambda: listed(daemon, "orders").keys() == {"taken", "10.0.0.5:80"})
    finally:
        daemon.stop()


def test_the_metadata_of_a_go_registrar_is_listed(each_etcd: EtcdProcess | FakeEtcd) -> None:
    daemon = serve(each_etcd.url)
    try:
        each_etcd.put(b"orders/10.0.0.1:80", b'{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"version":"v2","weight":3}}')
        until(lambda: listed(daemon, "orders"))
        metadata = listed(daemon, "orders")["10.0.0.1:80"]["metadata"]
        assert metadata == {"version": "v2", "weight": "3", "origin": "etcd-naming"}
    finally:
        daemon.stop()


def test_published_keys_come_back_within_seconds_after_etcd_has_lost_them(each_etcd: EtcdProcess | FakeEtcd) -> None:
    etcd = each_etcd
    daemon = serve(etcd.url)
    try:
        url = f"{daemon.url}/api/v1/services/orders/instances"
        httpx.put(f"{url}/o1", json={"address": "10.0.0.1", "port": 80, "ttl": None}).raise_for_status()
        until(lambda: keys_below(etcd, "orders/"))
        etcd.kill()
        etcd.save()
        etcd.start()
        etcd.wait()
        httpx.put(f"{url}/o2", json={"address": "10.0.0.2", "port": 80, "ttl": None}).raise_for_status()
        until(lambda: len(keys_below(etcd, "orders/")) == 2)
        for lose in (etcd.restore, etcd.wipe):
            etcd.kill()
            lose()
            etcd.start()
            etcd.wait()
            lost = time.monotonic()
            until(lambda: set(keys_below(etcd, "orders/")) == {"orders/10.0.0.1:80", "orders/10.0.0.2:80"})
            assert time.monotonic() - lost < LEASE_TTL / 6, "before the session would have been renewed"
    finally:
        daemon.stop()


def test_a_full_catalog_delays_no_other_service(etcd: EtcdProcess, caplog: pytest.LogCaptureFixture) -> None:
    daemon = serve(f"{etcd.url}?prefix=/svc/")
    try:
        register(daemon, "zoo", "z1", 1)
        until(lambda: len(keys_below(etcd, "/svc/")) == 1)
        daemon.registry.max_catalog_bytes = daemon.registry.snapshot.size
        commit(etcd, Put(b"/svc/ants/10.0.0.2:80", b'{"Addr":"10.0.0.2:80"}'))
        until(lambda: "not all instances that are registered in etcd are listed: registrations take" in caplog.text)
        register(daemon, "zoo", "z1", 2)
        until(lambda: keys_below(etcd, "/svc/zoo/").keys() == {"/svc/zoo/10.0.0.1:2"})
        daemon.registry.max_catalog_bytes *= 3
        until(lambda: listed(daemon, "ants").keys() == {"10.0.0.2:80"})
        assert caplog.text.count("not all instances that are registered") == 1
    finally:
        daemon.stop()


def test_an_external_key_is_never_overwritten(etcd: EtcdProcess) -> None:
    theirs = b'{"Op":0,"Addr":"10.0.0.1:1","Metadata":"theirs"}'
    commit(etcd, Put(b"/svc/orders/10.0.0.1:1", theirs))
    daemon = serve(f"{etcd.url}?prefix=/svc/")
    try:
        register(daemon, "orders", "o1", 1)
        register(daemon, "orders", "o2", 2)
        until(lambda: "/svc/orders/10.0.0.1:2" in keys_below(etcd, "/svc/"))
        assert keys_below(etcd, "/svc/")["/svc/orders/10.0.0.1:1"]["Metadata"] == "theirs"
        assert listed(daemon, "orders").keys() == {"o1", "o2"}, "the external key is not listed a second time"
        commit(etcd, Delete(b"/svc/orders/10.0.0.1:1"))
        until(lambda: "/svc/orders/10.0.0.1:1" in keys_below(etcd, "/svc/"))
        assert keys_below(etcd, "/svc/")["/svc/orders/10.0.0.1:1"]["Metadata"] is None, "the key is free, and published"
    finally:
        daemon.stop()


def test_a_key_that_can_not_be_listed_is_logged_once(etcd: EtcdProcess, caplog: pytest.LogCaptureFixture) -> None:
    daemon = serve(f"{etcd.url}?prefix=/svc")
    full = {"Addr": "10.0.0.9:80", "Adsum": {"metadata": {f"k{number}": "" for number in range(MAX_METADATA)}}}
    try:
        for _ in range(2):
            commit(
                etcd,
                Put(b"/svc/10.0.0.1:80", b'{"Addr":"10.0.0.1:80"}'),
                Put(b"/svc/Not A Name/x", b'{"Addr":"10.0.0.1:80"}'),
                Put(b"/svc/orders/full", json.dumps(full).encode()),
                Put(b"/svc/orders/meta", b'{"Addr":"169.254.169.254:80"}'),
                Put(b"/svc/orders/nowhere", b'{"Addr":"nowhere"}'),
                Put(b"/svcorders/10.0.0.1:80", b"of somebody else"),
            )
        commit(etcd, Put(b"/svc/orders/x", b'{"Addr":"10.0.0.2:81","Adsum":{"id":"../x"}}'))
        until(lambda: listed(daemon, "orders"))
        assert listed(daemon, "orders").keys() == {"10.0.0.2:81"}, (
            "an instance without a valid id gets one from its address"
        )
        services = httpx.get(f"{daemon.url}/api/v1/services").json()["services"]
        assert [service["name"] for service in services] == ["orders"]
        messages = [record.getMessage() for record in caplog.records if record.name == "adsum.etcd-naming"]
        assert [message.partition(" in etcd is not listed: ")[0].removeprefix("the key ") for message in messages] == [
            "'/svc/10.0.0.1:80'",
            "'/svc/Not A Name/x'",
            "'/svc/orders/full'",
            "'/svc/orders/meta'",
            "'/svc/orders/nowhere'",
        ]
    finally:
        daemon.stop()


def test_without_a_prefix_naming_shares_etcd_with_the_store(
    etcd: EtcdProcess, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = serve(etcd.url, etcd.url)
    try:
        register(daemon, "orders", "o1", 1)
        commit(etcd, Put(b"orders/10.0.0.2:80", b'{"Addr":"10.0.0.2:80"}'))
        until(lambda: listed(daemon, "orders").keys() == {"o1", "10.0.0.2:80"})
        until(lambda: keys_below(etcd, "orders/").keys() == {"orders/10.0.0.1:1", "orders/10.0.0.2:80"})
        assert [record for record in caplog.records if record.name == "adsum.etcd-naming"] == []
    finally:
        daemon.stop()


@pytest.mark.parametrize("naming", ["/adsum", "/adsum/catalog", "/", "etcd://e2?prefix=/adsum"])
def test_a_prefix_that_overlaps_the_stores_own_keys_is_refused(naming: str) -> None:
    with pytest.raises(Invalid, match="etcd_naming: must not overlap /adsum/"):
        ServeConfig(store="etcd://e1,e2", advertise="http://e0:23786", etcd_naming=naming)
    ServeConfig(store="etcd://e1,e2", advertise="http://e0:23786", etcd_naming="etcd://e3?prefix=/adsum/")


def test_a_prefix_without_an_address_needs_a_store_on_etcd() -> None:
    with pytest.raises(Invalid, match="since the store is not etcd"):
        ServeConfig(store="memory:", etcd_naming="/svc/")
