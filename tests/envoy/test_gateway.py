"""A gateway's life, with a real Envoy."""

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
from tests.envoy.conftest import GatewayAddresses, Start, SteadyCaller, UpstreamServer, has_exited, wait_until

READY = "adsum gateway listens on"


def get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.get(url)


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_gateway_says_that_it_is_ready_when_it_takes_requests(
    start: Start, place: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start("--zone", "a", "--no-default-routes", "--access-log", "off")
    gateway.wait_for_output(f"{READY} {place.url}\n")
    assert get(f"{place.url}/orders").text == "ok"
    shape = ads.profiles[0]
    assert (shape.listen, shape.zone, shape.default_routes, shape.access_log) == ((place.listen,), "a", False, "off")


def test_the_monitor_tells_metrics_and_health_and_nothing_else_of_envoy(start: Start, place: GatewayAddresses) -> None:
    start().wait_for_output(READY)
    get(place.url)
    # Envoy adds to its histograms every few seconds.
    wait_until("latencies", lambda: "_time_bucket" in get(f"{place.monitor_url}/metrics").text)
    metrics = get(f"{place.monitor_url}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="orders"} 1' in metrics.text
    assert 'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="orders",le="5000"} 1' in metrics.text
    assert 'envoy_route="all"' in metrics.text
    assert "external" not in metrics.text
    asked = get(f"{place.monitor_url}/metrics?format=json&filter=nothing")
    assert asked.status_code == 301
    assert asked.headers["location"].endswith("/metrics"), "what callers ask beyond that is not Envoy's to answer"
    assert get(f"{place.monitor_url}/healthz").text == "ok\n"
    assert get(f"{place.monitor_url}/readyz").status_code == 200
    for path in ("/", "/stats", "/config_dump", "/quitquitquit", "/metrics/../config_dump", "/readyz/x"):
        assert get(f"{place.monitor_url}{path}").status_code == 404
    assert httpx.post(f"{place.monitor_url}/metrics", trust_env=False).status_code == 404


def test_more_connections_than_allowed_are_closed_and_the_monitor_still_answers(
    start: Start, place: GatewayAddresses
) -> None:
    start("--max-connections", "2").wait_for_output(READY)
    with httpx.Client(trust_env=False) as one, httpx.Client(trust_env=False) as other:
        assert one.get(place.url).status_code == other.get(place.url).status_code == 200
        with pytest.raises(httpx.TransportError):
            get(place.url)
        assert "downstream_global_cx_overflow" in get(f"{place.monitor_url}/metrics").text
        assert one.get(place.url).status_code == 200
    wait_until("room", lambda: answers(place.url))


def test_an_envoy_that_was_killed_is_started_again(start: Start, place: GatewayAddresses) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    (first,) = gateway.envoys()
    os.kill(first, signal.SIGKILL)
    gateway.wait_for_output("Envoy has ended by itself (SIGKILL)")
    gateway.wait_for_output("Envoy serves again")
    assert get(place.url).text == "ok"
    assert first not in gateway.envoys()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []


def test_no_envoy_outlives_a_gateway_that_was_killed(start: Start, place: GatewayAddresses) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    (envoy,) = gateway.envoys()
    gateway.signal(signal.SIGKILL)
    gateway.process.wait()
    wait_until("Envoy's end", lambda: has_exited(envoy))
    assert not answers(place.url)


def test_a_gateway_goes_on_serving_without_a_registry(start: Start, place: GatewayAddresses, ads: AdsServer) -> None:
    start().wait_for_output(READY)
    ads.close()
    with SteadyCaller(place.url) as caller:
        caller.wait_for_answers(100)
    assert caller.failed == []
    assert get(f"{place.monitor_url}/readyz").status_code == 200


def test_a_gateway_waits_for_the_registry_and_says_so(start: Start, place: GatewayAddresses, ads: AdsServer) -> None:
    ads.close()
    gateway = start()
    gateway.wait_for_output(f"no registry answers at {ads.address}")
    ads.open()
    gateway.wait_for_output(READY)
    assert get(place.url).text == "ok"


def test_a_port_that_speaks_something_else_than_xds_is_told(start: Start, upstream: UpstreamServer) -> None:
    start("--xds", f"127.0.0.1:{upstream.port}").wait_for_output(
        f"127.0.0.1:{upstream.port} is no port for xDS (HTTP/1, maybe); a registry's is 23787 unless it says otherwise"
    )


def test_a_gateway_that_waits_for_the_registry_can_be_ended(start: Start, ads: AdsServer) -> None:
    ads.close()
    gateway = start()
    gateway.wait_for_output(f"no registry answers at {ads.address}")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []


def test_sigterm_under_load_fails_no_request(start: Start, place: GatewayAddresses) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    with SteadyCaller(place.url) as caller:
        caller.wait_for_answers(200)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_for_exit() == 0
    assert caller.failed == []
    assert list(gateway.tmp.iterdir()) == []


def test_sigterm_waits_for_what_runs_and_says_that_it_is_not_ready(
    start: Start, place: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.wait_for_output(READY)
    slow: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: slow.append(get(f"{place.url}/slow")))
    asking.start()
    assert upstream.slow_requests.acquire(timeout=30)
    with httpx.Client(trust_env=False) as kept:
        assert kept.get(f"{place.monitor_url}/readyz").status_code == 200
        gateway.signal(signal.SIGTERM)
        gateway.wait_for_output("draining")
        wait_until("nobody to listen", lambda: not answers(place.url))
        wait_until("its word", lambda: get(f"{place.monitor_url}/readyz").status_code == 503)
        assert get(f"{place.monitor_url}/metrics").status_code == 200
        assert kept.get(f"{place.monitor_url}/readyz").status_code == 503
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    asking.join(30)
    assert [each.text for each in slow] == ["ok"]
    assert slow[0].headers["connection"] == "close"
    assert gateway.wait_for_exit() == 0


def test_what_runs_longer_than_the_drain_is_cut_off_and_told(
    start: Start, place: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "0.5")
    gateway.wait_for_output(READY)
    asking = threading.Thread(target=lambda: answers(f"{place.url}/slow"))
    asking.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert "1 requests still run and are cut off" in gateway.output
    asking.join(30)


def test_what_runs_longer_than_a_reload_lets_it_is_cut_off_and_told(
    start: Start, place: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    asking = threading.Thread(target=lambda: answers(f"{place.url}/slow"))
    asking.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("what still runs, on up to 1 connections, is cut off; --drain-timeout gives it longer")
    asking.join(30)


def test_a_second_signal_ends_it_at_once(start: Start, place: GatewayAddresses, upstream: UpstreamServer) -> None:
    gateway = start("--drain-timeout", "1h")
    gateway.wait_for_output(READY)
    (envoy,) = gateway.envoys()
    asking = threading.Thread(target=lambda: answers(f"{place.url}/slow"))
    asking.start()
    assert upstream.slow_requests.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("draining")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 128 + signal.SIGTERM
    assert has_exited(envoy)
    assert list(gateway.tmp.iterdir()) == []
    asking.join(30)


def test_sighup_under_load_fails_no_request(start: Start, place: GatewayAddresses, ads: AdsServer) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    with SteadyCaller(place.url) as caller:
        for n in range(2):
            before = gateway.envoys()
            caller.wait_for_answers(100)
            gateway.signal(signal.SIGHUP)
            wait_until("another Envoy alone", lambda: len(gateway.envoys()) == 1 and gateway.envoys() != before)  # noqa: B023
            wait_until("its word", lambda: gateway.output.count("reloaded") == n + 1)  # noqa: B023
            caller.wait_for_answers(100)
    assert caller.failed == []
    assert caller.refused == 0
    assert get(f"{place.monitor_url}/readyz").status_code == 200
    assert len(ads.profiles) == 3


def test_sighup_reads_the_settings_again(start: Start, place: GatewayAddresses, ads: AdsServer, tmp_path: Path) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    (tmp_path / "adsum.toml").write_text("[gateway]\ndefault_routes = false\n")
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("reloaded")
    assert [each.default_routes for each in ads.profiles] == [True, False]


def test_settings_that_are_wrong_leave_everything_as_it_is(
    start: Start, place: GatewayAddresses, tmp_path: Path
) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    before = gateway.envoys()
    (tmp_path / "adsum.toml").write_text('[gateway]\naccess_log = "xml"\n')
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("gateway.access_log: must be json, text or off")
    assert gateway.envoys() == before
    assert get(place.url).text == "ok"


def test_a_new_envoy_that_would_have_nothing_to_serve_is_not_started(
    start: Start, place: GatewayAddresses, ads: AdsServer, tmp_path: Path
) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    before = gateway.envoys()
    ads.close()
    (tmp_path / "adsum.toml").write_text("[gateway]\ndefault_routes = false\n")  # Of such a one nothing was kept.
    with SteadyCaller(place.url) as caller:
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_output("not reloaded, the Envoy that serves goes on: no registry answers")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert gateway.envoys() == before


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hanging"])
def test_without_a_registry_a_reload_serves_what_was_told_last(
    start: Start, place: GatewayAddresses, ads: AdsServer, hangs: bool
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    ads.close()
    with SteadyCaller(place.url) as caller, hanging(ads) if hangs else nullcontext():
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_output("a new Envoy serves what the one before was told last")
        caller.wait_for_answers(50)
        wait_until("it alone", lambda: len(gateway.envoys()) == 1)
        gateway.signal(signal.SIGHUP)
        wait_until("another one", lambda: gateway.output.count("told last") == 2)
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0


def test_a_new_envoy_that_comes_to_nothing_harms_nobody_and_another_one_is_tried(
    start: Start, place: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    (first,) = gateway.envoys()
    ads.silent = True
    with SteadyCaller(place.url) as caller:
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_output("it takes no requests yet")
        (new,) = set(gateway.envoys()) - {first}
        os.kill(new, signal.SIGKILL)
        gateway.wait_for_output("not reloaded, the Envoy that serves goes on")
        caller.wait_for_answers(50)
        gateway.wait_for_output("a new Envoy serves what the one before was told last")
        wait_until("the end of the one before", lambda: has_exited(first))
        ads.silent = False
        ads.close()  # Who was told nothing asks nobody else by itself.
        ads.open()
        gateway.wait_for_output("reloaded: a new Envoy serves; the one before finishes what runs")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0


def test_sigterm_while_another_envoy_comes_up_finishes_what_runs(
    start: Start, place: GatewayAddresses, ads: AdsServer, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.wait_for_output(READY)
    slow: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: slow.append(get(f"{place.url}/slow")))
    asking.start()
    assert upstream.slow_requests.acquire(timeout=30)
    ads.silent = True
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("it takes no requests yet")
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("it is ended once nobody is connected")
    with pytest.raises(httpx.ConnectError):
        get(place.url)
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    asking.join(30)
    assert [each.text for each in slow] == ["ok"]
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []


@pytest.mark.parametrize("option", ["listen", "monitor"])
def test_a_port_that_is_taken_is_told_and_ends_the_start(start: Start, place: GatewayAddresses, option: str) -> None:
    host, _, port = getattr(place, option).partition(":")
    with socket.create_server((host, int(port)), reuse_port=True):
        gateway = start()
        assert gateway.wait_for_exit() == 1
    assert gateway.output == (
        f"adsum: can't listen at {host}:{port}: something else listens there already; --{option} names another place\n"
    )


def test_without_a_registry_a_new_envoy_serves_what_the_one_before_was_told(
    start: Start, place: GatewayAddresses, ads: AdsServer, tmp_path: Path
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    wait_until("what it was told on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    ads.close()
    (first,) = gateway.envoys()
    os.kill(first, signal.SIGKILL)
    gateway.wait_for_output("no registry answers, so it serves what it was told last")
    assert get(place.url).text == "ok"
    with SteadyCaller(place.url) as caller:
        caller.wait_for_answers(50)
        ads.open()
        gateway.wait_for_output("reloaded")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hanging"])
def test_a_gateway_that_starts_without_a_registry_serves_what_it_was_told_last(
    start: Start, place: GatewayAddresses, ads: AdsServer, tmp_path: Path, hangs: bool
) -> None:
    first = start()
    first.wait_for_output(READY)
    wait_until("what it was told on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    first.signal(signal.SIGTERM)
    assert first.wait_for_exit() == 0
    ads.close()
    with hanging(ads) if hangs else nullcontext():
        second = start()
        second.wait_for_output(READY)
        second.wait_for_output("no registry answers, so it serves what it was told last")
        assert get(place.url).text == "ok"
        second.signal(signal.SIGTERM)
        assert second.wait_for_exit() == 0


@contextmanager
def hanging(ads: AdsServer) -> Iterator[None]:
    """Where the registry was, connections are accepted and nobody answers."""
    with socket.create_server(("127.0.0.1", ads.port), reuse_port=True):
        yield
