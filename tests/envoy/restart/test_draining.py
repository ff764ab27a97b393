"""Draining an Envoy: what the gateway does to its process, and what it does without access to it."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from adsum.envoy.admin import ActiveTraffic, AdminUnavailable
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.restart import draining
from adsum.envoy.restart.draining import drain
from adsum.envoy.restart.tcp_connections import TcpConnectionCounts, count_connections
from tests.envoy.plans import plan_for


class DrainedProcess:
    """This process in place of an Envoy's."""

    pid = os.getpid()
    running = True

    async def stop(self, timeout: float) -> int:
        self.running = False
        return 0


class DrainedAdmin:
    """An admin interface that records the calls to it. No request is in progress."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def stop_accepting(self) -> None:
        self.calls.append("stop accepting")

    async def drain_connections(self) -> None:
        self.calls.append("drain connections")

    async def active_traffic(self) -> ActiveTraffic:
        return ActiveTraffic(0, 0)


def envoy(*, process_access: bool, port: int = 8080) -> tuple[EnvoyInstance, DrainedAdmin]:
    plan = replace(plan_for(("127.0.0.1", 1), listen=[f"127.0.0.1:{port}"]), process_access=process_access)
    admin = DrainedAdmin()
    return EnvoyInstance(
        plan,
        Path("/"),
        cast("Any", DrainedProcess()),
        cast("Any", admin),
        GatewaySecrets(),
        uses_last_good_config=False,
    ), admin


@pytest.fixture
def accept_drains(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes whose sockets were to refuse connections; the system does not permit it."""
    pids: list[int] = []

    def refuse(pid: int, ports: object, max_sockets: int) -> list[socket.socket]:
        pids.append(pid)
        return []

    monkeypatch.setattr(draining, "refuse_new_connections", refuse)
    return pids


async def test_where_the_system_forbids_it_envoy_closes_its_sockets_itself(accept_drains: list[int]) -> None:
    instance, admin = envoy(process_access=True)
    await drain(instance, 5.0)
    assert accept_drains == [instance.process.pid]
    assert admin.calls == ["stop accepting", "drain connections"]


async def test_without_process_access_the_sockets_of_envoy_are_not_touched(accept_drains: list[int]) -> None:
    instance, admin = envoy(process_access=False)
    await drain(instance, 5.0)
    assert accept_drains == []
    assert admin.calls == ["stop accepting", "drain connections"]


async def test_an_unresponsive_envoy_is_not_idle_while_its_connections_can_not_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance, admin = envoy(process_access=False)
    counts = [None, None, TcpConnectionCounts(1, 1), TcpConnectionCounts(0, 0)]

    async def no_answer() -> None:
        raise AdminUnavailable("Envoy does not answer")

    monkeypatch.setattr(admin, "stop_accepting", no_answer)
    monkeypatch.setattr(draining, "count_connections", lambda _: counts.pop(0))
    monkeypatch.setattr(draining, "CONNECTION_POLL_INTERVAL", 0.0)
    await drain(instance, 30.0)
    assert counts == []


def test_connections_are_counted_only_with_process_access() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()), server.accept()[0]:
            counts = count_connections(envoy(process_access=True, port=port)[0])
            assert isinstance(counts, TcpConnectionCounts)
            assert counts.downstream == 1
            assert count_connections(envoy(process_access=False, port=port)[0]) is None
