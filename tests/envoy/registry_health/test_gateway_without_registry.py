"""A gateway with a real Envoy while no registry answers."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import (
    READY,
    GatewayAddresses,
    Start,
    SteadyCaller,
    UpstreamServer,
    get,
    wait_until,
)


def test_a_gateway_keeps_serving_without_a_registry(start: Start, addresses: GatewayAddresses, ads: AdsServer) -> None:
    start().wait_for_output(READY)
    ads.close()
    with SteadyCaller(addresses.url) as caller:
        caller.wait_for_answers(100)
    assert caller.failed == []
    assert get(f"{addresses.monitor_url}/readyz").status_code == 200


def test_a_gateway_that_waits_for_the_registry_says_so(
    start: Start, addresses: GatewayAddresses, ads: AdsServer
) -> None:
    ads.close()
    gateway = start()
    gateway.wait_for_output(f"no registry answers at {ads.address}")
    ads.open()
    gateway.wait_for_output(READY)
    assert get(addresses.url).text == "ok"


def test_a_port_that_does_not_speak_xds_is_reported(start: Start, upstream: UpstreamServer) -> None:
    start("--xds", f"127.0.0.1:{upstream.port}").wait_for_output(
        f"127.0.0.1:{upstream.port} does not speak xDS (it may be an HTTP/1 port); "
        "a registry's xDS port is 23787 by default"
    )


def test_a_gateway_that_waits_for_the_registry_can_be_ended(start: Start, ads: AdsServer) -> None:
    ads.close()
    gateway = start()
    gateway.wait_for_output(f"no registry answers at {ads.address}")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []


def test_a_new_envoy_without_a_configuration_is_not_started(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, tmp_path: Path
) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    before = gateway.envoys()
    ads.close()
    (tmp_path / "adsum.toml").write_text(
        "[gateway]\ndefault_routes = false\n"
    )  # A gateway with this profile has no last good configuration.
    with SteadyCaller(addresses.url) as caller:
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_output("not reloaded, the current Envoy keeps serving: no registry answers")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert gateway.envoys() == before


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hanging"])
def test_without_a_registry_a_reload_serves_the_last_good_config(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, hangs: bool
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    ads.close()
    with SteadyCaller(addresses.url) as caller, hanging(ads) if hangs else nullcontext():
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_output("a new Envoy serves the last good configuration")
        caller.wait_for_answers(50)
        wait_until("it alone", lambda: len(gateway.envoys()) == 1)
        gateway.signal(signal.SIGHUP)
        wait_until("another one", lambda: gateway.output.count("last good configuration") == 2)
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0


def test_without_a_registry_a_restarted_envoy_serves_the_last_good_config(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, tmp_path: Path
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    wait_until("the configuration on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    ads.close()
    (first,) = gateway.envoys()
    os.kill(first, signal.SIGKILL)
    gateway.wait_for_output("no registry answers; the gateway serves the last good configuration")
    assert get(addresses.url).text == "ok"
    with SteadyCaller(addresses.url) as caller:
        caller.wait_for_answers(50)
        ads.open()
        gateway.wait_for_output("reloaded")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hanging"])
def test_a_gateway_that_starts_without_a_registry_serves_the_last_good_config(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, tmp_path: Path, hangs: bool
) -> None:
    first = start()
    first.wait_for_output(READY)
    wait_until("the configuration on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    first.signal(signal.SIGTERM)
    assert first.wait_for_exit() == 0
    ads.close()
    with hanging(ads) if hangs else nullcontext():
        second = start()
        second.wait_for_output(READY)
        second.wait_for_output("no registry answers; the gateway serves the last good configuration")
        assert get(addresses.url).text == "ok"
        second.signal(signal.SIGTERM)
        assert second.wait_for_exit() == 0


@contextmanager
def hanging(ads: AdsServer) -> Iterator[None]:
    """The registry's port accepts connections, and nobody answers."""
    with socket.create_server(("127.0.0.1", ads.port), reuse_port=True):
        yield
