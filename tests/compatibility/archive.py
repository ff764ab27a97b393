"""Writes the files of this version for the archive: `python -m tests.compatibility.archive NAME`. See the README."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from adsum.config.serve import ServeConfig
from adsum.etcd.address import DEFAULT_STORE_PREFIX, EtcdAddress
from adsum.etcd.client import EtcdClient
from tests.support.etcd_process import EtcdProcess
from tests.support.registry_daemon import RunningDaemon

HERE = Path(__file__).parent
SQLITE, ETCD, CLIENTS = HERE / "sqlite", HERE / "etcd", HERE / "clients"
O1: dict[str, Any] = {
    "address": "127.0.0.1",
    "port": 9,
    "ttl": 86_400,
    "tags": ["v2"],
    "metadata": {"team": "shop"},
    "zone": "a",
    "weight": 3,
    "checks": [{"name": "tcp", "kind": "tcp", "interval": 3_600}],
}
SHOP = {"hosts": ["shop.example"], "to": [{"service": "orders"}]}
STORY: tuple[tuple[str, str, Mapping[str, Any] | None], ...] = (
    ("PUT", "/services/orders/instances/o1", O1),
    ("PUT", "/services/orders/instances/o2", {"address": "127.0.0.2", "port": 8_000, "ttl": None}),
    ("PUT", "/services/orders/instances/o2/override", {"status": "maintenance", "reason": "new disks"}),
    ("PUT", "/services/users/instances/u1", {"address": "127.0.0.3", "port": 8_000}),
    ("DELETE", "/services/users/instances/u1?reason=gone", None),
    ("PUT", "/routes/shop", SHOP),
    ("PUT", "/upstreams/orders", {"policy": "least_request"}),
)
"""The requests after which every file was archived, in the order of its revisions."""


def play_story(store: str) -> None:
    """Sends the requests of `STORY` to a registry over that store."""
    daemon = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store=store))
    try:
        with httpx.Client(base_url=f"{daemon.url}/api/v1", headers={"Adsum-Actor": "ann"}, trust_env=False) as http:
            for method, path, body in STORY:
                http.request(method, path, json=body).raise_for_status()
    finally:
        daemon.stop()


def catalog_prefix(address: EtcdAddress) -> bytes:
    """Returns the prefix of a registry's keys."""
    return address.with_default_prefix(DEFAULT_STORE_PREFIX).prefix.encode()


async def _dump(address: EtcdAddress) -> dict[str, str]:
    """Returns the keys of a registry in etcd, without those of its nodes."""
    prefix = catalog_prefix(address)
    connection = EtcdClient(address, Random())
    try:
        key_values = (await connection.read_all(prefix)).key_values
    finally:
        await connection.close()
    dump = {key_value.key.removeprefix(prefix).decode(): key_value.value.decode() for key_value in key_values}
    return {key: value for key, value in dump.items() if not key.startswith("cluster/")}


def main(name: str) -> None:
    """Writes `sqlite/NAME.db.gz` and `etcd/NAME.json`."""
    with TemporaryDirectory() as folder:
        database = Path(folder, "adsum.db")
        play_story(f"sqlite:///{database}")
        with (SQLITE / f"{name}.db.gz").open("wb") as file:
            file.write(gzip.compress(database.read_bytes(), mtime=0))
        with EtcdProcess(Path(folder)) as etcd:
            play_story(etcd.url)
            dump = asyncio.run(_dump(EtcdAddress.parse(etcd.url)))
        (ETCD / f"{name}.json").write_text(json.dumps(dump, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
