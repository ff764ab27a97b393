"""Every dialect of the table, and one more that a node mounts without a change anywhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib import import_module, util
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from adsum import dialects
from adsum.config.serve import ServeConfig
from adsum.core.errors import AdsumError, Invalid
from adsum.daemon import Daemon
from adsum.dialects.dialect import DialectContext
from adsum.dialects.xds.settings import DEFAULT_XDS_LISTEN
from adsum.mounts import HttpPath, Reply
from adsum.servers.http.path_router import PathRouter
from tests.dialects.tiny_dialect import TinyDialect, TinySettings

WAIT_TIMEOUT = 20.0


@dataclass(frozen=True)
class TinyServeConfig(ServeConfig, TinySettings):
    """The settings of a node that has the tiny dialect, too."""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**dialects.DIALECTS, "tiny": "tests.dialects.tiny_dialect"}
    monkeypatch.setattr(dialects, "DIALECTS", MappingProxyType(more))


@pytest.fixture
async def daemon(table: None) -> AsyncIterator[Daemon]:
    node = Daemon(TinyServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="n", tiny="127.0.0.1:0"))
    await node.start()
    yield node
    await node.stop()


@pytest.mark.parametrize("name", dialects.DIALECTS)
def test_the_settings_of_a_dialect_are_flags_of_serve(name: str) -> None:
    package = dialects.DIALECTS[name].removesuffix(".dialect")
    if util.find_spec(f"{package}.settings") is None:
        return
    declared = [value for value in vars(import_module(f"{package}.settings")).values() if _is_settings(value)]
    assert declared
    assert set(declared) <= set(dialects.DialectSettings.__bases__), "add the class to DialectSettings"
    assert all("listener_addresses" in vars(settings) for settings in declared)


def test_the_listener_addresses_are_those_of_all_dialects_that_are_on() -> None:
    config = TinyServeConfig(store="memory:", xds="10.0.0.1:1", tiny="[::]:2")
    assert config.dialect_addresses() == {"xds": "10.0.0.1:1", "tiny": "[::]:2"}
    naming = "etcd://127.0.0.1:2379?prefix=services/"
    config = TinyServeConfig(store="memory:", xds="off", etcd_naming=naming)
    assert config.dialect_addresses() == {}, "etcd naming listens nowhere"
    assert ServeConfig(store="memory:").dialect_addresses() == {"xds": DEFAULT_XDS_LISTEN}


def _is_settings(value: object) -> bool:
    return isinstance(value, type) and "check_settings" in vars(value)


async def test_a_node_mounts_paths_and_ports_of_a_dialect_that_is_only_in_the_table(daemon: Daemon) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        body = {"address": "10.0.0.1", "port": 80, "ttl": None}
        url = f"{daemon.urls[0]}/api/v1/services/orders"
        (await http.put(f"{url}/instances/o1", json=body)).raise_for_status()
        answers = [(await http.get(daemon.urls[0] + path)).text for path in ("/tiny", "/tiny/x?y=1", "/v1")]
        assert answers[:2] == ["/tiny: orders", "/tiny/x: orders"]
        assert "tiny" not in answers[2]
        assert [instance["id"] for instance in (await http.get(url)).json()["instances"]] == ["o1"], (
            "the fast path still works"
        )
        own, tcp, udp = daemon.addresses["tiny"]
        assert (await http.get(f"http://{own}/anything")).text == "/anything: orders"
        (traffic,) = (await http.get(f"{daemon.urls[0]}/api/v1/status")).json()["traffic"]
        assert (traffic["service"], traffic["requests"]) == ("orders", 3)
        assert "adsum_tiny_answers_total 3.0" in (await http.get(f"{daemon.urls[0]}/metrics")).text
    async with asyncio.timeout(WAIT_TIMEOUT):
        reader, writer = await asyncio.open_connection(*tcp.split(":"))
        writer.write(b"?\n")
        assert await reader.readline() == b"orders\n"
        second_reader, second = await asyncio.open_connection(*tcp.split(":"))
        assert await second_reader.read() == b"", "one connection is the limit"
        for stream in (writer, second):
            stream.close()
            await stream.wait_closed()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(WAIT_TIMEOUT)
        host, _, port = udp.partition(":")
        datagrams.sendto(b"? ", (host, int(port)))
        assert await asyncio.to_thread(datagrams.recv, 100) == b"? orders"
    assert set(daemon.addresses) == {"tiny"}


async def test_a_dialect_starts_before_the_catalog_is_loaded_and_reloads_and_stops_with_the_node(
    table: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TinyDialect] = []

    def create(context: DialectContext) -> TinyDialect:
        made.append(TinyDialect(context, "127.0.0.1:0"))
        return made[-1]

    monkeypatch.setattr("tests.dialects.tiny_dialect.create", create)
    node = Daemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="n"))
    await node.start()
    await node.reload(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="n", probes=7))
    await node.stop()
    assert made[0].events == ["start, ready: False", "loaded, ready: True", "reload, ServeConfig", "stop"]


async def test_a_taken_port_of_a_dialect_is_refused_with_its_remedy(table: None) -> None:
    config: dict[str, Any] = {"listen": "127.0.0.1:0", "xds": "off", "store": "memory:", "node": "n"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node = Daemon(TinyServeConfig(**config, tiny=f"127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(AdsumError, match="in use; choose another address with --tiny HOST:PORT"):
            await node.start()


def test_settings_of_a_dialect_are_checked_and_an_unknown_dialect_is_a_key_error() -> None:
    with pytest.raises(Invalid, match="tiny: must not be nowhere, whatever the store is"):
        TinyServeConfig(store="memory:", tiny="nowhere")
    with pytest.raises(KeyError):
        dialects.factory("klingon")


async def _app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


class NamedFastPath:
    """Answers every request with its name, if it has one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def prepare(self, headers: Sequence[tuple[bytes, bytes]], certificate: bytes) -> object | None:
        return self._name

    def answer(self, method: bytes, target: bytes, prepared: object, body: bytes, peer: str, reply: Reply) -> bool:
        if not self._name or prepared != self._name:
            return False
        reply(200, self._name.encode())
        return True


def _paths(*prefixes: str) -> list[HttpPath]:
    return [HttpPath(prefix, _app, NamedFastPath(prefix or "root")) for prefix in prefixes]


def _answer(router: PathRouter, target: bytes) -> list[bytes]:
    """Returns the responses of the fast path of a router: one or none."""
    fast_path, replies = router.fast_path, list[bytes]()
    assert fast_path is not None
    prepared = fast_path.prepare((), b"")
    answered = fast_path.answer(b"PUT", target, prepared, b"", "", lambda _, encoded: replies.append(encoded))
    assert answered == bool(replies)
    return replies


def test_a_single_application_and_a_single_fast_path_are_called_directly() -> None:
    (only,) = _paths("")
    router = PathRouter([only])
    assert router.app is only.app
    assert router.fast_path is only.fast_path
    router = PathRouter([only, HttpPath("/v1", _app)])
    assert router.fast_path is only.fast_path


def test_the_longest_prefix_of_whole_segments_takes_a_path() -> None:
    router = PathRouter(_paths("", "/v1", "/v1/health"))
    taken = [_answer(router, path) for path in (b"/v1/health/x", b"/v1?q", b"/v1/h", b"/v12", b"/")]
    assert taken == [[b"/v1/health"], [b"/v1"], [b"/v1"], [b"root"], [b"root"]]


def test_only_the_fast_path_of_the_longest_prefix_answers() -> None:
    router = PathRouter([*_paths("", "/v1"), HttpPath("/v1/slow", _app), HttpPath("/v2", _app, NamedFastPath(""))])
    assert _answer(router, b"/v1/fast") == [b"/v1"]
    assert _answer(router, b"/v1/slow") == []
    assert _answer(router, b"/v2/any") == []


@pytest.mark.parametrize("prefixes", [("/v1",), ("", "/v1", "/v1"), ()])
def test_mounted_paths_that_clash_are_refused(prefixes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must differ"):
        PathRouter(_paths(*prefixes))
