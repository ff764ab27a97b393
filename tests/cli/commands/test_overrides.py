"""`adsum drain`, `maintenance` and `resume`, against a running registry."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cli.conftest import Adsum

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon


def test_a_drain_without_an_answer_in_time_ends_with_124(adsum: Adsum) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = f"http://127.0.0.1:{hung.getsockname()[1]}"
        started_at = time.monotonic()
        result = adsum("drain", "orders/a", "--timeout", "200ms", "--url", url)
    assert (result.code, time.monotonic() - started_at < 5.0) == (124, True)
    assert "has not answered within 0.2 s" in result.err


@contextmanager
def mute_consumer(registry: RunningDaemon) -> Iterator[None]:
    """A consumer that watches orders and sends no ACKs."""
    watching = http.client.HTTPConnection(registry.url.removeprefix("http://"))
    watching.request("GET", "/api/v1/watch?service=orders&acks=true&consumer=c1&name=web")
    answer = watching.getresponse()
    while not answer.readline().startswith(b"event: synced"):
        pass
    try:
        yield
    finally:
        answer.close()
        watching.close()


def test_a_drain_that_is_not_acknowledged_in_time_ends_with_124(orders: RunningDaemon, adsum: Adsum) -> None:
    with mute_consumer(orders):
        result = adsum("drain", "orders/a", "--timeout", "200ms")
    assert (result.code, result.out) == (124, "")
    assert (
        "orders/a is draining, but 1 consumer has not confirmed within 0.2 s that they no longer call it:" in result.err
    )
    assert "  web at 127.0.0.1 (known to test): it is connected, and has not acknowledged\n" in result.err


def test_commands_act_on_all_instances_of_a_service_or_at_an_address(orders: RunningDaemon, adsum: Adsum) -> None:
    for service, address in (("orders", "10.0.0.7"), ("users", "10.0.0.7"), ("users", "10.0.0.8")):
        id = address.rpartition(".")[2]
        args = ("--id", id, "--address", address, "--port", "8001", "--ttl", "none")
        assert adsum("register", service, *args).code == 0

    def statuses() -> dict[str, str]:
        views = [json.loads(adsum("ls", service, "--json").out) for service in ("orders", "users")]
        return {
            f"{view['service']}/{instance['id']}": instance["status"]
            for view in views
            for instance in view["instances"]
        }

    assert adsum("maintenance", "--at", "10.0.0.7", "--reason", "disks").code == 0
    changed = {key for key, status in statuses().items() if status == "maintenance"}
    assert changed == {"orders/7", "users/7"}
    assert adsum("resume", "orders", "--at", "10.0.0.7").code == 0
    drained = adsum("drain", "orders", "--all", "--no-wait", "--json")
    assert (drained.code, len(drained.out.splitlines())) == (0, 3)
    assert statuses() == {
        "orders/a": "draining",
        "orders/b": "draining",
        "orders/7": "draining",
        "users/7": "maintenance",
        "users/8": "passing",
    }
    empty = adsum("drain", "--at", "10.0.0.9")
    assert (empty.code, empty.err) == (3, "adsum: no instance is listed at 10.0.0.9\n")


def test_a_drain_of_several_instances_continues_after_one_is_not_acknowledged(
    orders: RunningDaemon, adsum: Adsum
) -> None:
    with mute_consumer(orders):
        result = adsum("drain", "orders", "--all", "--timeout", "200ms")
    assert result.code == 124
    for key, length in (("orders/a", "0.2"), ("orders/b", "0.1")):
        assert f"{key} is draining, but 1 consumer has not confirmed within {length} s" in result.err


def test_a_drain_that_is_not_acknowledged_prints_json_too(orders: RunningDaemon, adsum: Adsum) -> None:
    with mute_consumer(orders):
        result = adsum("drain", "orders/a", "--timeout", "200ms", "--json")
    written = json.loads(result.out)
    assert (result.code, written["unacknowledged"]) == (124, 1)
    assert [consumer["name"] for consumer in written["waiting"]] == ["web"]
    assert "1 consumer has not confirmed" in result.err
