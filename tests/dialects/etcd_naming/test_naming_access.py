"""The rights of etcd naming: what it publishes, what keys may list, and who may change that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from adsum.access.control import AccessControl
from adsum.core.access.principal import NAMING_PRINCIPAL, Principal
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES, parse_scopes
from adsum.core.catalog import decisions, declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import DocumentKey, DocumentKind
from adsum.core.errors import Forbidden, NotOwner
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.dialects.etcd_naming.naming_access import NamingAccess, listing_refusal, may_publish
from adsum.etcd.values import Put
from adsum.registry import Registry
from tests.dialects.etcd_naming.test_etcd_naming import commit, keys_below, last_reason, listed, register, serve, until
from tests.support.etcd_process import EtcdProcess
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver
from tests.support.registry_daemon import RunningDaemon
from tests.support.tokens import declare_token, revoke_token

CALLER = Caller("tester", 0.0)


class NamingWorld:
    """A registry without etcd, and the rights of etcd naming in it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = Registry(FakeStore(), self.clock, RecordingObserver())
        self.refused: list[tuple[str, str]] = []
        control = AccessControl(
            self.registry, self.clock, NO_SCOPES, lambda operation, reason: self.refused.append((operation, reason))
        )
        self.access = NamingAccess(control, self.clock)


@pytest.fixture
async def world() -> AsyncIterator[NamingWorld]:
    found = NamingWorld()
    await found.registry.start()
    yield found
    await found.registry.stop()


async def test_without_a_token_of_its_name_etcd_naming_may_do_everything(world: NamingWorld) -> None:
    assert world.access.principal.scopes == EVERYTHING
    assert world.access.principal.owner == NAMING_PRINCIPAL
    assert world.access.principal is world.access.principal


async def test_the_scopes_of_the_token_limit_it_until_the_token_is_gone(world: NamingWorld) -> None:
    before = world.access.principal
    await declare_token(world.registry, "another", "read:billing")
    assert world.access.principal is before
    await declare_token(world.registry, NAMING_PRINCIPAL, "read:orders", "write:users")
    limited = world.access.principal
    assert limited is world.access.principal
    assert [may_publish(limited, service) for service in ("orders", "users", "billing")] == [True, True, False]
    refusals = [listing_refusal(limited, service) for service in ("orders", "users", "billing")]
    assert [refusal is None for refusal in refusals] == [False, True, False]
    assert "lacks the scope write:billing" in str(refusals[2])
    await revoke_token(world.registry, NAMING_PRINCIPAL)
    assert world.access.principal.scopes == EVERYTHING


async def test_a_token_that_has_expired_gives_no_rights(world: NamingWorld) -> None:
    await declare_token(world.registry, NAMING_PRINCIPAL, "write:*", expires=world.clock.wall() + 10.0)
    assert may_publish(world.access.principal, "orders")
    world.clock.jump(10.0)
    assert world.access.principal.scopes == NO_SCOPES


async def test_a_token_that_can_not_be_read_gives_no_rights(world: NamingWorld) -> None:
    key = DocumentKey(DocumentKind.TOKEN, NAMING_PRINCIPAL)
    await world.registry.write(declarations.declare(key, b'{"of": "a later version"}', CALLER))
    assert world.access.principal.scopes == NO_SCOPES


async def test_only_refusals_are_counted(world: NamingWorld) -> None:
    world.access.record_refusal(Forbidden("no"))
    world.access.record_refusal(Forbidden("no"))
    assert world.refused == [("etcd_naming", "forbidden")] * 2


def _by(name: str, *scopes: str) -> Caller:
    return Caller(name, 0.0, principal=Principal(name, parse_scopes("scopes", scopes)))


async def test_an_instance_that_a_key_lists_is_changed_only_by_callers_that_may_operate_its_service(
    world: NamingWorld,
) -> None:
    instance = Registration(Instance("orders", "x", "10.0.0.1", 80), None, holder=NAMING_PRINCIPAL)
    naming = Caller(NAMING_PRINCIPAL, 0.0, principal=world.access.principal)
    await world.registry.write(decisions.register(instance, naming))
    key = Key("orders", "x")
    with pytest.raises(NotOwner):
        await world.registry.write(decisions.deregister(key, "", "", _by("web", "write:orders")))
    await world.registry.write(decisions.deregister(key, "", "", _by("ann", "operate:orders")))
    assert world.registry.snapshot.find(key) is None


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as etcd:
        yield etcd


def _limit(daemon: RunningDaemon, *scopes: str) -> None:
    daemon.run(declare_token(daemon.registry, NAMING_PRINCIPAL, *scopes))


def _found(daemon: RunningDaemon, service: str, id: str) -> Listing:
    listing = daemon.registry.snapshot.find(Key(service, id))
    assert listing is not None
    return listing


def test_a_change_of_rights_changes_what_is_published_and_what_keys_list(etcd: EtcdProcess) -> None:
    daemon = serve(f"{etcd.url}?prefix=/svc/")
    try:
        register(daemon, "orders", "o1", 1)
        register(daemon, "users", "u1", 2)
        for service in ("orders", "users"):
            address = json.dumps({"Addr": f"10.0.0.9:8{len(service)}"}).encode()
            commit(etcd, Put(f"/svc/{service}/theirs".encode(), address))
        until(lambda: len(keys_below(etcd, "/svc/")) == 4)
        until(lambda: listed(daemon, "orders").keys() == {"o1", "10.0.0.9:86"})
        until(lambda: listed(daemon, "users").keys() == {"u1", "10.0.0.9:85"})
        assert _found(daemon, "users", "10.0.0.9:85").owner == NAMING_PRINCIPAL
        _limit(daemon, "read:orders", "write:users")
        until(lambda: listed(daemon, "orders").keys() == {"o1"})
        assert last_reason(daemon, "10.0.0.9:86").endswith("lacks the scope write:orders, so its keys are not listed")
        assert keys_below(etcd, "/svc/").keys() == {
            "/svc/orders/10.0.0.1:1",
            "/svc/orders/theirs",
            "/svc/users/10.0.0.1:2",
            "/svc/users/theirs",
        }, "who may write may also read"
        _limit(daemon, "write:users")
        until(lambda: "/svc/orders/10.0.0.1:1" not in keys_below(etcd, "/svc/"))
        assert listed(daemon, "users").keys() == {"u1", "10.0.0.9:85"}
        daemon.run(revoke_token(daemon.registry, NAMING_PRINCIPAL))
        until(lambda: "/svc/orders/10.0.0.1:1" in keys_below(etcd, "/svc/"))
        until(lambda: listed(daemon, "orders").keys() == {"o1", "10.0.0.9:86"})
    finally:
        daemon.stop()


def test_a_drain_of_a_service_that_is_not_published_does_not_wait_for_etcd(etcd: EtcdProcess) -> None:
    daemon = serve(f"{etcd.url}?prefix=/svc/")
    try:
        _limit(daemon, "write:users")
        register(daemon, "users", "u1", 1)
        register(daemon, "orders", "o1", 2)
        until(lambda: len(keys_below(etcd, "/svc/")) == 1)
        etcd.kill()
        consumers = daemon.registry.watches.consumers
        later = daemon.registry.snapshot.revision + 1
        for service, expected in (("orders", 0), ("users", 1)):
            status = daemon.run(consumers.wait_for_acknowledgements(service, later, 0.0))
            assert len(status.waiting) == expected
    finally:
        daemon.stop()


def test_an_instance_that_an_earlier_version_listed_gets_its_owner(etcd: EtcdProcess) -> None:
    store = f"{etcd.url}?prefix=/adsum/"
    daemon = serve("/svc/", store)
    try:
        commit(etcd, Put(b"/svc/orders/theirs", b'{"Addr":"10.0.0.9:80"}'))
        until(lambda: listed(daemon, "orders").keys() == {"10.0.0.9:80"})
        before = _found(daemon, "orders", "10.0.0.9:80")
        unowned = decisions.listing_change(Listing(before.registration, before.provenance))
        daemon.run(daemon.registry.write(lambda _: [unowned]))
        until(lambda: _found(daemon, "orders", "10.0.0.9:80").owner == NAMING_PRINCIPAL)
    finally:
        daemon.stop()
