"""Today's stores open, read and continue every archived file of earlier versions."""

from __future__ import annotations

import gzip
import json
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from adsum import stores
from adsum.core.catalog.documents import INTENT_KINDS, DocumentKind
from adsum.core.model import Key, Status
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.ports import Store
from adsum.stores.sqlite.schema import MIGRATIONS
from tests.compatibility.archive import ETCD, O1, SQLITE, catalog_prefix, play_story
from tests.stores.support import change, current_listings, current_snapshot, put_route
from tests.support.etcd_process import EtcdProcess

FILES = sorted(SQLITE.glob("*.db.gz"))
DUMPS = sorted(ETCD.glob("*.json"))


async def _assert_story(store: Store, *, routes: bool) -> None:
    """Asserts that the store has the catalog and history of `STORY`, and accepts writes."""
    snapshot = await current_snapshot(store)
    found = current_listings(snapshot)
    assert found.keys() == {Key("orders", "o1"), Key("orders", "o2")}
    o1, o2 = found[Key("orders", "o1")], found[Key("orders", "o2")]
    instance = o1.instance
    assert (instance.address, instance.port, instance.zone, instance.weight) == ("127.0.0.1", 9, "a", 3)
    assert (instance.tags, dict(instance.metadata)) == (("v2",), O1["metadata"])
    assert (o1.registration.ttl, [check.name for check in o1.registration.checks]) == (86_400, ["tcp"])
    assert (o2.status, o2.override and o2.override.reason) == (Status.MAINTENANCE, "new disks")
    assert set(snapshot.services) == {"orders", "users"}, "users is known, though its only instance was removed"
    removal = (await store.history("users", "u1", 1))[0]
    provenance = removal.provenance
    assert (removal.status, provenance.cause, provenance.reason) == ("", "deregistered", "gone")
    assert "ann" in (provenance.actor, provenance.claimed), "up to version 0.2, the actor was only claimed"
    documents = {
        str(document.key): json.loads(document.body) for document in snapshot.documents.of_kind(DocumentKind.ROUTE)
    }
    assert (documents.get("route shop", {}).get("hosts") == ["shop.example"]) is routes
    revision = await store.commit([change("o3")], snapshot.revision, [put_route("new")])
    assert [edit.key.name for edit in await store.edits(INTENT_KINDS, "new", 9)] == ["new"]
    assert (await store.history("orders", "o3", 1))[0].revision == revision


def _unpacked(archived: Path, folder: Path) -> Path:
    path = folder / "adsum.db"
    path.write_bytes(gzip.decompress(archived.read_bytes()))
    return path


def _key_values(archived: Path) -> dict[str, str]:
    dumped: dict[str, str] = json.loads(archived.read_text())
    return dumped


def test_the_archive_is_complete() -> None:
    assert {file.name for file in FILES} >= {f"schema-{version}.db.gz" for version in range(1, 5)}
    assert DUMPS


@pytest.mark.parametrize("archived", FILES, ids=lambda archived: archived.name)
async def test_a_file_of_an_earlier_version_is_migrated(archived: Path, tmp_path: Path) -> None:
    path = _unpacked(archived, tmp_path)
    for again in (False, True):
        store = stores.store(f"sqlite:///{path}")
        await store.open()
        try:
            if again:
                assert Key("orders", "o3") in current_listings(await current_snapshot(store))
            else:
                await _assert_story(store, routes=archived.name != "schema-1.db.gz")
        finally:
            await store.close()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


@pytest.mark.parametrize("archived", DUMPS, ids=lambda archived: archived.name)
async def test_the_keys_of_an_earlier_version_in_etcd_are_read(archived: Path, tmp_path: Path) -> None:
    with EtcdProcess(tmp_path) as etcd:
        url = f"{etcd.url}?prefix=/{secrets.token_hex(4)}"
        address = EtcdAddress.parse(url)
        connection = EtcdClient(address, Random())
        try:
            for key, value in _key_values(archived).items():
                await connection.put(catalog_prefix(address) + key.encode(), value.encode())
        finally:
            await connection.close()
        store = stores.store(url)
        await store.open()
        try:
            await _assert_story(store, routes=True)
        finally:
            await store.close()


async def test_a_file_of_today_passes_the_same_checks(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/adsum.db"
    play_story(url)
    store = stores.store(url)
    await store.open()
    try:
        await _assert_story(store, routes=True)
    finally:
        await store.close()
