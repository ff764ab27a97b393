"""Commands against a running registry."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.shell_completion import ShellComplete

from adsum import wire
from adsum.cache_files import cache_folder
from adsum.cli import arguments, main
from adsum.cli import client as cli_client
from adsum.cli.commands import status as status_command
from adsum.cli.root import root
from adsum.client.sources.source import ViewPosition
from adsum.client.sync import SyncClient
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.config import client as config_client
from adsum.config.serve import ServeConfig
from adsum.core.model import Endpoint, Instance
from tests.cli.conftest import Adsum
from tests.client import stub_node as stubs
from tests.client.stub_node import stub_node
from tests.support import registry_daemon
from tests.support.etcd_process import EtcdProcess

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon

UNUSED_URL = "http://127.0.0.1:1"


def test_ls_reports_an_empty_registry(registry: RunningDaemon, adsum: Adsum) -> None:
    result = adsum("ls")
    assert (result.code, result.out) == (0, "")
    assert "empty" in result.err


def test_ls_shows_services_and_instances_with_cause_and_age(orders: RunningDaemon, adsum: Adsum) -> None:
    assert adsum("ls").out.splitlines() == ["SERVICE  INSTANCES  PASSING", "orders   2          2"]
    result = adsum("ls", "orders")
    assert result.out.splitlines()[0].split() == ["ID", "ADDRESS", "STATUS", "SINCE", "CAUSE", "TAGS"]
    assert "127.0.0.1:8001" in result.out
    assert "registered by anonymous@127.0.0.1 (as ann)" in result.out
    assert " ago" in result.out


def test_ls_filters_as_the_registry_does(orders: RunningDaemon, adsum: Adsum) -> None:
    found = json.loads(adsum("ls", "orders", "--tag", "b", "--metadata", "k=v", "--json").out)
    assert [instance["id"] for instance in found["instances"]] == ["b"]
    empty = adsum("ls", "orders", "--status", "critical")
    assert (empty.code, empty.out) == (0, "")
    assert adsum("ls", "orders", "--metadata", "k").code == 2


def test_json_has_the_shape_of_the_api(orders: RunningDaemon, adsum: Adsum) -> None:
    services = json.loads(adsum("ls", "--json").out)
    assert services["services"][0]["name"] == "orders"
    assert {"epoch", "revision"} <= services.keys()
    status = json.loads(adsum("status", "--json").out)
    assert status["instances"] == 2
    assert status["ready"] is True


def test_status_lists_refused_clients_and_departed_gateways(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    status = wire.NodeStatus(
        *("n1", "1.0", True, "e1", 7, "memory:", 0.0, 60.0),
        gateways_disconnected=[wire.DisconnectedGatewayView("gw1", "envoy 1.40.0", "10.0.0.1:5", 65.0, 6)],
        refused_streams=[wire.RefusedStreamView("gw2", "10.0.0.2:5", "INVALID_ARGUMENT", "a name is too long", 1e9, 3)],
    )
    monkeypatch.setattr(status_command, "run_with_client", lambda *_: (status, []))
    lines = [line.split() for line in adsum("status").out.splitlines()]
    departed = lines.index(["DISCONNECTED", "CLIENT", "ADDRESS", "FOR", "REVISION"])
    assert lines[departed + 1] == ["gw1", "envoy", "1.40.0", "10.0.0.1:5", "65", "s", "6"]
    refused = lines.index(["REFUSED", "ADDRESS", "LAST", "COUNT", "REASON"])
    row = lines[refused + 1]
    assert (row[:2], row[-6:]) == (["gw2", "10.0.0.2:5"], ["INVALID_ARGUMENT:", "a", "name", "is", "too", "long"])


def test_an_unknown_service_ends_with_3_and_a_suggestion(orders: RunningDaemon, adsum: Adsum) -> None:
    for command in ("ls", "resolve", "history"):
        result = adsum(command, "ordres")
        assert (result.code, result.out) == (3, ""), command
        assert "did you mean orders?" in result.err


def test_resolve_prints_addresses_urls_and_hosts(orders: RunningDaemon, adsum: Adsum) -> None:
    assert adsum("resolve", "orders").out in ("127.0.0.1:8001\n", "127.0.0.1:8002\n")
    assert adsum("resolve", "orders", "--all").out == "127.0.0.1:8001\n127.0.0.1:8002\n"
    assert adsum("resolve", "orders", "--as", "url", "--all").out.startswith("http://127.0.0.1:8001\n")
    assert adsum("resolve", "orders", "--as", "host").out == "127.0.0.1\n"
    assert json.loads(adsum("resolve", "orders", "--json").out)["instances"][0]["id"] in ("a", "b")


def test_resolve_by_key_chooses_the_same_instance_each_time(orders: RunningDaemon, adsum: Adsum) -> None:
    chosen = {adsum("resolve", "orders", "--policy", "maglev", "--key", "customer-7").out for _ in range(4)}
    assert len(chosen) == 1


def test_resolve_never_chooses_a_draining_instance(orders: RunningDaemon, adsum: Adsum) -> None:
    assert adsum("drain", "orders/a", "--reason", "deploy").code == 0
    assert adsum("resolve", "orders", "--all").out == "127.0.0.1:8002\n"
    assert adsum("maintenance", "orders/b", "--for", "1h", "--reason", "new disks").code == 0
    empty = adsum("resolve", "orders")
    assert empty.code == 3
    assert (
        "a is draining (drained by anonymous@127.0.0.1 (as ann): deploy); "
        "b is maintenance (maintenance by anonymous@127.0.0.1 (as ann): new disks)" in empty.err
    )
    assert adsum("resume", "orders/a").err == "orders/a is passing\n"
    assert adsum("resolve", "orders").out == "127.0.0.1:8001\n"


def _view_folder() -> Path:
    folder = cache_folder("views")
    assert folder is not None
    return folder


def test_resolve_uses_the_cached_view_when_the_registry_is_down(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(Instance("orders", "a", "10.0.0.1", 80))
    ViewCache(_view_folder(), [UNUSED_URL]).save(
        "orders", CachedView(ViewPosition("e", 7), (endpoint,), time.time() - 90.0)
    )
    monkeypatch.setenv("ADSUM_URL", UNUSED_URL)
    result = adsum("resolve", "orders")
    assert (result.code, result.out) == (0, "10.0.0.1:80\n")
    assert result.err.startswith("no registry is available")
    assert "using the view cached 90 s ago" in result.err


def test_resolve_waits_for_a_registry_that_is_down_before_it_uses_the_cached_view(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_view(UNUSED_URL, "a", age=7200.0)
    monkeypatch.setenv("ADSUM_URL", UNUSED_URL)
    started_at = time.monotonic()
    result = adsum("resolve", "orders", "--wait", "1s")
    assert time.monotonic() - started_at > 0.9
    assert (result.code, result.out) == (0, "10.0.0.1:80\n")
    assert "using the view cached 2 h ago" in result.err


@pytest.mark.parametrize("command", [["ls"], ["drain", "orders/a", "--no-wait"]])
async def test_the_reason_of_a_node_that_declines_is_quoted(adsum: Adsum, command: list[str]) -> None:
    async with stub_node() as node:
        node.answer = stubs.http_reply(503, b'{"title": "", "status": 503, "detail": "etcd is away"}')
        result = await asyncio.to_thread(adsum, *command, "--url", node.url)
    assert result.code == 69
    assert f"no registry is available: {node.url}: etcd is away (try again when that is over" in result.err
    assert "running there" not in result.err


async def test_a_host_that_has_joined_no_registry_gets_the_way_to_one_on_another_host(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_client, "DEFAULT_URL", UNUSED_URL)
    monkeypatch.setattr(cli_client, "DEFAULT_URL", UNUSED_URL)
    result = await asyncio.to_thread(adsum, "ls")
    assert result.code == 69
    assert "--url or ADSUM_URL sets the address; `adsum join` joins a registry on another host)" in result.err
    elsewhere = await asyncio.to_thread(adsum, "ls", "--url", "http://127.0.0.1:2")
    assert "adsum join" not in elsewhere.err


def cache_view(url: str, id: str, age: float = 90.0) -> None:
    """Puts a view with one instance of orders into the cache of this host."""
    endpoint = Endpoint(Instance("orders", id, "10.0.0.1", 80))
    ViewCache(_view_folder(), [url]).save("orders", CachedView(ViewPosition("e", 7), (endpoint,), time.time() - age))


def test_resolve_uses_the_cached_view_when_the_registry_hangs(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = f"http://127.0.0.1:{hung.getsockname()[1]}"
        cache_view(url, "a", age=7200.0)
        monkeypatch.setenv("ADSUM_URL", url)
        started_at = time.monotonic()
        result = adsum("resolve", "orders")
        assert time.monotonic() - started_at < 3.0
        waited = adsum("resolve", "orders", "--wait", "60s")
        assert time.monotonic() - started_at < 5.0, "it must not wait for a registry that hangs"
        assert (waited.code, waited.out) == (0, "10.0.0.1:80\n")
    assert (result.code, result.out) == (0, "10.0.0.1:80\n")
    assert "using the view cached 2 h ago" in result.err
    assert "is older than cache_max_age (60 min)" in result.err


async def test_resolve_waits_for_an_empty_service_although_the_watch_fails(adsum: Adsum) -> None:
    async with stub_node() as node:
        # An empty service, and an empty list of services.
        empty = b'{"epoch": "e", "service": "orders", "revision": 9, "instances": [], "services": []}'
        node.answer = stubs.http_reply(200, empty)
        cache_view(node.url, "gone")
        started_at = time.monotonic()
        result = await asyncio.to_thread(adsum, "resolve", "orders", "--wait", "1s", "--url", node.url)
    assert result.code == 3
    assert time.monotonic() - started_at > 0.9


def test_a_node_that_hangs_costs_a_command_half_a_second(registry: RunningDaemon, adsum: Adsum) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        urls = f"http://127.0.0.1:{hung.getsockname()[1]},{registry.url}"
        for _ in range(6):  # A command may try either node first.
            started_at = time.monotonic()
            assert adsum("ls", "--url", urls).code == 0
            assert adsum("drain", "orders/nobody", "--url", urls).code == 3
            assert time.monotonic() - started_at < 3.0


def test_resolve_waits_although_an_instance_is_cached(registry: RunningDaemon, adsum: Adsum) -> None:
    cache_view(registry.url, "gone")
    started_at = time.monotonic()
    result = adsum("resolve", "orders", "--wait", "1s")
    assert result.code == 3
    assert time.monotonic() - started_at > 0.9


@pytest.mark.parametrize("command", ["drain", "maintenance", "resume", "deregister"])
def test_a_command_that_writes_prints_the_response_as_json(orders: RunningDaemon, adsum: Adsum, command: str) -> None:
    before = json.loads(adsum("ls", "orders", "--json").out)
    result = adsum(command, "orders/a", "--json")
    written = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    assert written["epoch"] == before["epoch"]
    assert written["revision"] >= before["revision"]


def test_names_are_completed_from_the_registry(orders: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "COMPLETION_TIMEOUT", 30.0)

    def completed(command: str, incomplete: str) -> list[str]:
        shell = ShellComplete(root, {}, "adsum", "_ADSUM_COMPLETE")
        return [completion.value for completion in shell.get_completions([command], incomplete)]

    assert completed("resolve", "or") == ["orders"]
    assert completed("drain", "orders/") == ["orders/a", "orders/b"]
    monkeypatch.setenv("ADSUM_URL", UNUSED_URL)
    assert completed("resolve", "or") == []


def test_resolve_stops_waiting_after_the_given_time(registry: RunningDaemon, adsum: Adsum) -> None:
    result = adsum("resolve", "orders", "--wait", "200ms")
    assert (result.code, result.out) == (3, "")
    assert "no service 'orders' is registered" in result.err


def test_resolve_waits_for_a_healthy_instance(registry: RunningDaemon, adsum: Adsum) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        adsum("register", "orders", "--port", str(port), "--ttl", "none", "--check", "tcp?interval=100ms")
        at_once = adsum("resolve", "orders")
        assert (at_once.code, at_once.out) == (0, f"127.0.0.1:{port}\n")
        assert "too few instances of orders are passing" in at_once.err
        threading.Timer(0.5, taken.listen).start()
        waited = adsum("resolve", "orders", "--wait", "60s")
        assert (waited.code, waited.out, waited.err) == (0, f"127.0.0.1:{port}\n", "")


def test_resolve_waits_for_a_registry_that_is_just_starting(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{chosen.getsockname()[1]}"
    monkeypatch.setenv("ADSUM_URL", f"http://{place}")
    daemons: list[RunningDaemon] = []

    def start() -> None:
        daemons.append(registry_daemon.RunningDaemon(ServeConfig(listen=place, store="memory:", xds="off")))
        register = [sys.executable, "-m", "adsum", "register", "orders", "--port", "8000", "--ttl", "none"]
        subprocess.run(register, check=True, capture_output=True)

    starting = threading.Timer(0.5, start)
    starting.start()
    try:
        waited = adsum("resolve", "orders", "--wait", "60s")
        assert (waited.code, waited.out) == (0, "127.0.0.1:8000\n"), waited.err
    finally:
        starting.join()
        for daemon in daemons:
            daemon.stop()


def test_history_shows_cause_actor_and_reason(orders: RunningDaemon, adsum: Adsum) -> None:
    adsum("drain", "orders/a", "--reason", "deploy")
    adsum("deregister", "orders/a", "--reason", "the machine is gone")
    lines = adsum("history", "orders/a").out.splitlines()
    assert len(lines) == 4
    assert "gone" in lines[1]
    assert "deregistered by anonymous@127.0.0.1 (as ann): the machine is gone" in lines[1]
    assert "drained by anonymous@127.0.0.1 (as ann): deploy" in lines[2]
    changes = json.loads(adsum("history", "orders", "--limit", "1", "--json").out)["changes"]
    assert [(change["id"], change["actor"]) for change in changes] == [("a", "anonymous@127.0.0.1")]


@pytest.mark.parametrize("command", ["drain", "maintenance", "resume", "deregister"])
def test_an_unknown_instance_ends_with_3(orders: RunningDaemon, adsum: Adsum, command: str) -> None:
    result = adsum(command, "orders/z")
    assert (result.code, result.out) == (3, "")
    assert result.err == "adsum: no instance 'z' of service 'orders' is registered\n"


@pytest.mark.parametrize(
    "args",
    [
        ("drain", "orders"),
        ("drain", "orders/"),
        ("drain",),
        ("drain", "orders/a", "--all"),
        ("drain", "--all"),
        ("drain", "Orders/a"),
        ("ls", "orders/a"),
        ("maintenance", "orders/a", "--for", "soon"),
        ("drain", "orders/a", "--timeout", "1h"),
        ("resolve", "orders", "--policy", "best"),
        ("ls", "--nonsense"),
    ],
)
def test_wrong_usage_ends_with_2_and_an_error(adsum: Adsum, args: tuple[str, ...]) -> None:
    result = adsum(*args)
    assert (result.code, result.out) == (2, "")
    assert "Error: " in result.err


@pytest.mark.parametrize(
    "args", [("ls",), ("resolve", "a"), ("watch",), ("status",), ("history", "a"), ("drain", "a/b"), ("resume", "a/b")]
)
def test_a_registry_that_is_down_ends_with_69_in_one_sentence(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ADSUM_URL", UNUSED_URL)
    result = adsum(*args)
    assert (result.code, result.out) == (69, "")
    assert result.err.startswith("adsum: no registry is available: http://127.0.0.1:1: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "name"), [("etcd://127.0.0.1:1", "etcd"), ("consul://127.0.0.1:1", "the Consul agent")]
)
def test_an_etcd_or_consul_that_is_down_is_named(adsum: Adsum, url: str, name: str) -> None:
    result = adsum("resolve", "a", "--url", url)
    assert (result.code, result.out) == (69, "")
    assert result.err.startswith(f"adsum: {name} does not answer: {url}: ")
    assert "adsum serve" not in result.err


def test_an_unexpected_error_is_one_sentence_unless_debugging(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(root, "main", broken)
    result = adsum("ls")
    assert result.code == 1
    assert result.err == "adsum: unexpected ZeroDivisionError: oh; run with ADSUM_DEBUG=1 for the traceback\n"
    monkeypatch.setenv("ADSUM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main.run(["ls"])


def test_ctrl_c_ends_with_130(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(root, "main", interrupted)
    assert adsum("ls").code == 130


def test_a_closed_output_pipe_causes_no_traceback(orders: RunningDaemon) -> None:
    process = subprocess.Popen([sys.executable, "-m", "adsum", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_resolve_works_on_etcd_and_other_commands_report_that_they_need_a_registry(
    adsum: Adsum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EtcdProcess(tmp_path) as etcd:
        monkeypatch.setenv("ADSUM_URL", etcd.url)
        empty = adsum("resolve", "orders")
        assert (empty.code, "no instance of 'orders' is listed" in empty.err) == (3, True)
        with SyncClient(etcd.url, cache=False) as client:
            with client.register("orders", 8000, address="10.0.0.1", ttl=5.0, drain_wait=0.0):
                assert adsum("resolve", "orders").out == "10.0.0.1:8000\n"
            refused = adsum("ls")
    assert (refused.code, "is not an Adsum registry" in refused.err) == (2, True)


def test_forget_removes_an_empty_service_from_the_lists(orders: RunningDaemon, adsum: Adsum) -> None:
    refused = adsum("forget", "orders")
    assert (refused.code, refused.out) == (1, "")
    assert "2 instances" in refused.err
    for id in ("a", "b"):
        adsum("deregister", f"orders/{id}")
    assert adsum("forget", "orders", "--reason", "renamed").code == 0
    assert json.loads(adsum("ls", "--json").out)["services"] == []
    assert adsum("forget", "orders", "--json").code == 0
    newest = adsum("history", "orders", "--limit", "1").out
    assert all(word in newest for word in ("gone", "forgotten", "ann", "renamed"))
    assert "orders/" not in newest
