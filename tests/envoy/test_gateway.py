"""A gateway with a real Envoy: start, monitor, connection limit, crashes."""

from __future__ import annotations

import os
import signal
import socket

import httpx
import pytest

from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import (
    READY,
    GatewayAddresses,
    Start,
    answers,
    get,
    has_exited,
    wait_until,
)


def test_a_gateway_reports_ready_once_it_accepts_requests(
    start: Start, addresses: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start("--zone", "a", "--no-default-routes", "--access-log", "off")
    gateway.wait_for_output(f"{READY} {addresses.url}\n")
    assert get(f"{addresses.url}/orders").text == "ok"
    profile = ads.profiles[0]
    assert (profile.listen, profile.zone, profile.default_routes, profile.access_log) == (
        (addresses.listen,),
        "a",
        False,
        "off",
    )


def test_the_monitor_serves_metrics_and_health_and_nothing_else_of_envoy(
    start: Start, addresses: GatewayAddresses
) -> None:
    start().wait_for_output(READY)
    get(addresses.url)
    # Envoy adds to its histograms every few seconds.
    wait_until("latencies", lambda: "_time_bucket" in get(f"{addresses.monitor_url}/metrics").text)
    metrics = get(f"{addresses.monitor_url}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="orders"} 1' in metrics.text
    assert 'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="orders",le="5000"} 1' in metrics.text
    assert 'envoy_route="all"' in metrics.text
    assert "external" not in metrics.text
    redirect = get(f"{addresses.monitor_url}/metrics?format=json&filter=nothing")
    assert redirect.status_code == 301
    assert redirect.headers["location"].endswith("/metrics"), "Envoy does not see queries"
    assert get(f"{addresses.monitor_url}/healthz").text == "ok\n"
    assert get(f"{addresses.monitor_url}/readyz").status_code == 200
    for path in ("/", "/stats", "/config_dump", "/quitquitquit", "/metrics/../config_dump", "/readyz/x"):
        assert get(f"{addresses.monitor_url}{path}").status_code == 404
    assert httpx.post(f"{addresses.monitor_url}/metrics", trust_env=False).status_code == 404


def test_connections_beyond_the_limit_are_closed_and_the_monitor_still_answers(
    start: Start, addresses: GatewayAddresses
) -> None:
    start("--max-connections", "2").wait_for_output(READY)
    with httpx.Client(trust_env=False) as one, httpx.Client(trust_env=False) as other:
        assert one.get(addresses.url).status_code == other.get(addresses.url).status_code == 200
        with pytest.raises(httpx.TransportError):
            get(addresses.url)
        assert "downstream_global_cx_overflow" in get(f"{addresses.monitor_url}/metrics").text
        assert one.get(addresses.url).status_code == 200
    wait_until("room", lambda: answers(addresses.url))


def test_a_killed_envoy_is_restarted(start: Start, addresses: GatewayAddresses) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    (first,) = gateway.envoys()
    os.kill(first, signal.SIGKILL)
    gateway.wait_for_output("Envoy has exited unexpectedly (SIGKILL)")
    gateway.wait_for_output("Envoy serves again")
    assert get(addresses.url).text == "ok"
    assert first not in gateway.envoys()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []


def test_no_envoy_outlives_a_killed_gateway(start: Start, addresses: GatewayAddresses) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    (envoy,) = gateway.envoys()
    gateway.signal(signal.SIGKILL)
    gateway.process.wait()
    wait_until("Envoy's end", lambda: has_exited(envoy))
    assert not answers(addresses.url)


@pytest.mark.parametrize("option", ["listen", "monitor"])
def test_a_port_in_use_ends_the_start_with_the_reason(start: Start, addresses: GatewayAddresses, option: str) -> None:
    host, _, port = getattr(addresses, option).partition(":")
    with socket.create_server((host, int(port)), reuse_port=True):
        gateway = start()
        assert gateway.wait_for_exit() == 1
    assert gateway.output == (
        f"adsum: can't listen at {host}:{port}: another program listens there already; "
        f"choose another address with --{option}\n"
    )
