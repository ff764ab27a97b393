"""A gateway's life with a real Envoy: start, reload, drain, crashes, a lost registry."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import httpx
import pytest

from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import (
    READY,
    GatewayAddresses,
    Start,
    SteadyCaller,
    UpstreamServer,
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


def test_sigterm_under_load_fails_no_request(start: Start, addresses: GatewayAddresses) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    with SteadyCaller(addresses.url) as caller:
        caller.wait_for_answers(200)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_for_exit() == 0
    assert caller.failed == []
    assert list(gateway.tmp.iterdir()) == []


def test_sigterm_finishes_requests_and_reports_not_ready(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.wait_for_output(READY)
    slow: list[httpx.Response] = []
    calling = threading.Thread(target=lambda: slow.append(get(f"{addresses.url}/slow")))
    calling.start()
    assert upstream.slow_requests.acquire(timeout=30)
    with httpx.Client(trust_env=False) as kept:
        assert kept.get(f"{addresses.monitor_url}/readyz").status_code == 200
        gateway.signal(signal.SIGTERM)
        gateway.wait_for_output("draining")
        wait_until("the listener to close", lambda: not answers(addresses.url))
        wait_until("the 503 of /readyz", lambda: get(f"{addresses.monitor_url}/readyz").status_code == 503)
        assert get(f"{addresses.monitor_url}/metrics").status_code == 200
        assert kept.get(f"{addresses.monitor_url}/readyz").status_code == 503
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    calling.join(30)
    assert [response.text for response in slow] == ["ok"]
    assert slow[0].headers["connection"] == "close"
    assert gateway.wait_for_exit() == 0


def test_requests_beyond_the_drain_timeout_are_cut_off_and_logged(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "0.5")
    gateway.wait_for_output(READY)
    calling = threading.Thread(target=lambda: answers(f"{addresses.url}/slow"))
    calling.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert "1 requests are still in progress and are cut off" in gateway.output
    calling.join(30)


def test_requests_that_outlast_a_reload_are_cut_off_and_logged(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    calling = threading.Thread(target=lambda: answers(f"{addresses.url}/slow"))
    calling.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("requests on up to 1 connections are cut off; --drain-timeout gives them more time")
    calling.join(30)


def test_a_second_signal_ends_the_gateway_at_once(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "1h")
    gateway.wait_for_output(READY)
    (envoy,) = gateway.envoys()
    calling = threading.Thread(target=lambda: answers(f"{addresses.url}/slow"))
    calling.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("draining")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 128 + signal.SIGTERM
    assert has_exited(envoy)
    assert list(gateway.tmp.iterdir()) == []
    calling.join(30)


def test_sighup_under_load_fails_no_request(start: Start, addresses: GatewayAddresses, ads: AdsServer) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    with SteadyCaller(addresses.url) as caller:
        for n in range(2):
            before = gateway.envoys()
            caller.wait_for_answers(100)
            gateway.signal(signal.SIGHUP)
            wait_until("another Envoy alone", lambda: len(gateway.envoys()) == 1 and gateway.envoys() != before)  # noqa: B023
            wait_until("the log line", lambda: gateway.output.count("reloaded") == n + 1)  # noqa: B023
            caller.wait_for_answers(100)
    assert caller.failed == []
    assert caller.refused == 0
    assert get(f"{addresses.monitor_url}/readyz").status_code == 200
    assert len(ads.profiles) == 3


def test_sighup_rereads_the_settings(start: Start, addresses: GatewayAddresses, ads: AdsServer, tmp_path: Path) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    (tmp_path / "adsum.toml").write_text("[gateway]\ndefault_routes = false\n")
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("reloaded")
    assert [profile.default_routes for profile in ads.profiles] == [True, False]


def test_wrong_settings_change_nothing(start: Start, addresses: GatewayAddresses, tmp_path: Path) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    before = gateway.envoys()
    (tmp_path / "adsum.toml").write_text('[gateway]\naccess_log = "xml"\n')
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("gateway.access_log: must be json, text or off")
    assert gateway.envoys() == before
    assert get(addresses.url).text == "ok"


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


def test_a_failed_replacement_drops_no_request_and_is_tried_again(
    start: Start, addresses: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    (first,) = gateway.envoys()
    ads.silent = True
    with SteadyCaller(addresses.url) as caller:
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_output("the gateway does not accept requests yet")
        (new,) = set(gateway.envoys()) - {first}
        os.kill(new, signal.SIGKILL)
        gateway.wait_for_output("not reloaded, the current Envoy keeps serving")
        caller.wait_for_answers(50)
        gateway.wait_for_output("a new Envoy serves the last good configuration")
        wait_until("the end of the old Envoy", lambda: has_exited(first))
        ads.silent = False
        ads.close()  # Envoy reconnects only when its stream ends.
        ads.open()
        gateway.wait_for_output("reloaded: a new Envoy serves; the old one finishes its requests")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0


def test_without_process_access_reloads_succeed_until_one_has_failed(
    start: Start, addresses: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start("--drain-timeout", "1", "--no-process-access")
    gateway.wait_for_output(READY)
    for count in (1, 2):
        gateway.signal(signal.SIGHUP)
        wait_until("a reload", lambda: gateway.output.count("reloaded: ") == count)  # noqa: B023
        wait_until("the end of the old Envoy", lambda: len(gateway.envoys()) == 1)
    (first,) = gateway.envoys()
    ads.silent = True
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("the gateway does not accept requests yet")
    (new,) = set(gateway.envoys()) - {first}
    os.kill(new, signal.SIGKILL)
    gateway.wait_for_output("not reloaded, the current Envoy keeps serving")
    ads.silent = False
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("an earlier reload failed, and Envoy refuses further ones")
    assert gateway.envoys() == [first]
    assert get(addresses.url).text == "ok"


def test_without_process_access_sigterm_finishes_requests(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60", "--no-process-access")
    gateway.wait_for_output(READY)
    slow: list[httpx.Response] = []
    calling = threading.Thread(target=lambda: slow.append(get(f"{addresses.url}/slow")))
    calling.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    wait_until("the listener to close", lambda: not answers(addresses.url))
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    calling.join(30)
    assert [response.text for response in slow] == ["ok"]
    assert gateway.wait_for_exit() == 0


def test_sigterm_during_a_takeover_finishes_requests(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.wait_for_output(READY)
    slow: list[httpx.Response] = []
    calling = threading.Thread(target=lambda: slow.append(get(f"{addresses.url}/slow")))
    calling.start()
    assert upstream.slow_requests.acquire(timeout=30)
    ads.silent = True
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("the gateway does not accept requests yet")
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("it is ended once no client is connected")
    with pytest.raises(httpx.ConnectError):
        get(addresses.url)
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    calling.join(30)
    assert [response.text for response in slow] == ["ok"]
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []


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
