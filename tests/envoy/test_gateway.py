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

from tests.envoy.ads_server import Ads
from tests.envoy.conftest import Caller, Place, Start, Upstream, eventually, gone

READY = "adsum gateway listens on"


def get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.get(url)


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_gateway_says_that_it_is_ready_when_it_takes_requests(start: Start, place: Place, ads: Ads) -> None:
    gateway = start("--zone", "a", "--no-default-routes", "--access-log", "off")
    gateway.says(f"{READY} {place.url}\n")
    assert get(f"{place.url}/orders").text == "ok"
    shape = ads.shapes[0]
    assert (shape.listen, shape.zone, shape.default_routes, shape.access_log) == ((place.listen,), "a", False, "off")


def test_the_monitor_tells_metrics_and_health_and_nothing_else_of_envoy(start: Start, place: Place) -> None:
    start().says(READY)
    get(place.url)
    # Envoy adds to its histograms every few seconds.
    eventually("latencies", lambda: "_time_bucket" in get(f"{place.monitor_url}/metrics").text)
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


def test_more_connections_than_allowed_are_closed_and_the_monitor_still_answers(start: Start, place: Place) -> None:
    start("--max-connections", "2").says(READY)
    with httpx.Client(trust_env=False) as one, httpx.Client(trust_env=False) as other:
        assert one.get(place.url).status_code == other.get(place.url).status_code == 200
        with pytest.raises(httpx.TransportError):
            get(place.url)
        assert "downstream_global_cx_overflow" in get(f"{place.monitor_url}/metrics").text
        assert one.get(place.url).status_code == 200
    eventually("room", lambda: answers(place.url))


def test_an_envoy_that_was_killed_is_started_again(start: Start, place: Place) -> None:
    gateway = start()
    gateway.says(READY)
    (first,) = gateway.envoys()
    os.kill(first, signal.SIGKILL)
    gateway.says("Envoy has ended by itself (SIGKILL)")
    gateway.says("Envoy serves again")
    assert get(place.url).text == "ok"
    assert first not in gateway.envoys()
    gateway.signal(signal.SIGTERM)
    assert gateway.code() == 0
    assert list(gateway.tmp.iterdir()) == []


def test_no_envoy_outlives_a_gateway_that_was_killed(start: Start, place: Place) -> None:
    gateway = start()
    gateway.says(READY)
    (envoy,) = gateway.envoys()
    gateway.signal(signal.SIGKILL)
    gateway.process.wait()
    eventually("Envoy's end", lambda: gone(envoy))
    assert not answers(place.url)


def test_a_gateway_goes_on_serving_without_a_registry(start: Start, place: Place, ads: Ads) -> None:
    start().says(READY)
    ads.close()
    with Caller(place.url) as caller:
        caller.more(100)
    assert caller.failed == []
    assert get(f"{place.monitor_url}/readyz").status_code == 200


def test_a_gateway_waits_for_the_registry_and_says_so(start: Start, place: Place, ads: Ads) -> None:
    ads.close()
    gateway = start()
    gateway.says(f"no registry answers at {ads.place}")
    ads.open()
    gateway.says(READY)
    assert get(place.url).text == "ok"


def test_a_port_that_speaks_something_else_than_xds_is_told(start: Start, upstream: Upstream) -> None:
    start("--xds", f"127.0.0.1:{upstream.port}").says(
        f"127.0.0.1:{upstream.port} is no port for xDS (HTTP/1, maybe); a registry's is 23787 unless it says otherwise"
    )


def test_a_gateway_that_waits_for_the_registry_can_be_ended(start: Start, ads: Ads) -> None:
    ads.close()
    gateway = start()
    gateway.says(f"no registry answers at {ads.place}")
    gateway.signal(signal.SIGTERM)
    assert gateway.code() == 0
    assert list(gateway.tmp.iterdir()) == []


def test_sigterm_under_load_fails_no_request(start: Start, place: Place) -> None:
    gateway = start()
    gateway.says(READY)
    with Caller(place.url) as caller:
        caller.more(200)
        gateway.signal(signal.SIGTERM)
        assert gateway.code() == 0
    assert caller.failed == []
    assert list(gateway.tmp.iterdir()) == []


def test_sigterm_waits_for_what_runs_and_says_that_it_is_not_ready(
    start: Start, place: Place, upstream: Upstream
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.says(READY)
    slow: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: slow.append(get(f"{place.url}/slow")))
    asking.start()
    assert upstream.waiting.acquire(timeout=30)
    with httpx.Client(trust_env=False) as kept:
        assert kept.get(f"{place.monitor_url}/readyz").status_code == 200
        gateway.signal(signal.SIGTERM)
        gateway.says("draining")
        eventually("nobody to listen", lambda: not answers(place.url))
        eventually("its word", lambda: get(f"{place.monitor_url}/readyz").status_code == 503)
        assert get(f"{place.monitor_url}/metrics").status_code == 200
        assert kept.get(f"{place.monitor_url}/readyz").status_code == 503
    assert gateway.process.poll() is None
    upstream.go.set()
    asking.join(30)
    assert [each.text for each in slow] == ["ok"]
    assert slow[0].headers["connection"] == "close"
    assert gateway.code() == 0


def test_what_runs_longer_than_the_drain_is_cut_off_and_told(start: Start, place: Place, upstream: Upstream) -> None:
    gateway = start("--drain-timeout", "0.5")
    gateway.says(READY)
    asking = threading.Thread(target=lambda: answers(f"{place.url}/slow"))
    asking.start()
    assert upstream.waiting.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    assert gateway.code() == 0
    assert "1 requests still run and are cut off" in gateway.said
    asking.join(30)


def test_what_runs_longer_than_a_reload_lets_it_is_cut_off_and_told(
    start: Start, place: Place, upstream: Upstream
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.says(READY)
    asking = threading.Thread(target=lambda: answers(f"{place.url}/slow"))
    asking.start()
    assert upstream.waiting.acquire(timeout=30)
    gateway.signal(signal.SIGHUP)
    gateway.says("what still runs, on up to 1 connections, is cut off; --drain-timeout gives it longer")
    asking.join(30)


def test_a_second_signal_ends_it_at_once(start: Start, place: Place, upstream: Upstream) -> None:
    gateway = start("--drain-timeout", "1h")
    gateway.says(READY)
    (envoy,) = gateway.envoys()
    asking = threading.Thread(target=lambda: answers(f"{place.url}/slow"))
    asking.start()
    assert upstream.waiting.acquire(timeout=30)
    gateway.signal(signal.SIGTERM)
    gateway.says("draining")
    gateway.signal(signal.SIGTERM)
    assert gateway.code() == 128 + signal.SIGTERM
    assert gone(envoy)
    assert list(gateway.tmp.iterdir()) == []
    asking.join(30)


def test_sighup_under_load_fails_no_request(start: Start, place: Place, ads: Ads) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.says(READY)
    with Caller(place.url) as caller:
        for n in range(2):
            before = gateway.envoys()
            caller.more(100)
            gateway.signal(signal.SIGHUP)
            eventually("another Envoy alone", lambda: len(gateway.envoys()) == 1 and gateway.envoys() != before)  # noqa: B023
            eventually("its word", lambda: gateway.said.count("reloaded") == n + 1)  # noqa: B023
            caller.more(100)
    assert caller.failed == []
    assert caller.refused == 0
    assert get(f"{place.monitor_url}/readyz").status_code == 200
    assert len(ads.shapes) == 3


def test_sighup_reads_the_settings_again(start: Start, place: Place, ads: Ads, tmp_path: Path) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.says(READY)
    (tmp_path / "adsum.toml").write_text("[gateway]\ndefault_routes = false\n")
    gateway.signal(signal.SIGHUP)
    gateway.says("reloaded")
    assert [each.default_routes for each in ads.shapes] == [True, False]


def test_settings_that_are_wrong_leave_everything_as_it_is(start: Start, place: Place, tmp_path: Path) -> None:
    gateway = start()
    gateway.says(READY)
    before = gateway.envoys()
    (tmp_path / "adsum.toml").write_text('[gateway]\naccess_log = "xml"\n')
    gateway.signal(signal.SIGHUP)
    gateway.says("gateway.access_log: must be json, text or off")
    assert gateway.envoys() == before
    assert get(place.url).text == "ok"


def test_a_new_envoy_that_would_have_nothing_to_serve_is_not_started(
    start: Start, place: Place, ads: Ads, tmp_path: Path
) -> None:
    gateway = start()
    gateway.says(READY)
    before = gateway.envoys()
    ads.close()
    (tmp_path / "adsum.toml").write_text("[gateway]\ndefault_routes = false\n")  # Of such a one nothing was kept.
    with Caller(place.url) as caller:
        gateway.signal(signal.SIGHUP)
        gateway.says("not reloaded, the Envoy that serves goes on: no registry answers")
        caller.more(50)
    assert caller.failed == []
    assert gateway.envoys() == before


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hanging"])
def test_without_a_registry_a_reload_serves_what_was_told_last(
    start: Start, place: Place, ads: Ads, hangs: bool
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.says(READY)
    ads.close()
    with Caller(place.url) as caller, hanging(ads) if hangs else nullcontext():
        gateway.signal(signal.SIGHUP)
        gateway.says("a new Envoy serves what the one before was told last")
        caller.more(50)
        eventually("it alone", lambda: len(gateway.envoys()) == 1)
        gateway.signal(signal.SIGHUP)
        eventually("another one", lambda: gateway.said.count("told last") == 2)
        caller.more(50)
    assert caller.failed == []
    assert caller.refused == 0


def test_a_new_envoy_that_comes_to_nothing_harms_nobody_and_another_one_is_tried(
    start: Start, place: Place, ads: Ads
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.says(READY)
    (first,) = gateway.envoys()
    ads.silent = True
    with Caller(place.url) as caller:
        gateway.signal(signal.SIGHUP)
        gateway.says("it takes no requests yet")
        (new,) = set(gateway.envoys()) - {first}
        os.kill(new, signal.SIGKILL)
        gateway.says("not reloaded, the Envoy that serves goes on")
        caller.more(50)
        gateway.says("a new Envoy serves what the one before was told last")
        eventually("the end of the one before", lambda: gone(first))
        ads.silent = False
        ads.close()  # Who was told nothing asks nobody else by itself.
        ads.open()
        gateway.says("reloaded: a new Envoy serves; the one before finishes what runs")
        caller.more(50)
    assert caller.failed == []
    assert caller.refused == 0


def test_sigterm_while_another_envoy_comes_up_finishes_what_runs(
    start: Start, place: Place, ads: Ads, upstream: Upstream
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.says(READY)
    slow: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: slow.append(get(f"{place.url}/slow")))
    asking.start()
    assert upstream.waiting.acquire(timeout=30)
    ads.silent = True
    gateway.signal(signal.SIGHUP)
    gateway.says("it takes no requests yet")
    gateway.signal(signal.SIGTERM)
    gateway.says("it is ended once nobody is connected")
    with pytest.raises(httpx.ConnectError):
        get(place.url)
    assert gateway.process.poll() is None
    upstream.go.set()
    asking.join(30)
    assert [each.text for each in slow] == ["ok"]
    assert gateway.code() == 0
    assert list(gateway.tmp.iterdir()) == []


@pytest.mark.parametrize("option", ["listen", "monitor"])
def test_a_port_that_is_taken_is_told_and_ends_the_start(start: Start, place: Place, option: str) -> None:
    host, _, port = getattr(place, option).partition(":")
    with socket.create_server((host, int(port)), reuse_port=True):
        gateway = start()
        assert gateway.code() == 1
    assert gateway.said == (
        f"adsum: can't listen at {host}:{port}: something else listens there already; --{option} names another place\n"
    )


def test_without_a_registry_a_new_envoy_serves_what_the_one_before_was_told(
    start: Start, place: Place, ads: Ads, tmp_path: Path
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.says(READY)
    eventually("what it was told on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    ads.close()
    (first,) = gateway.envoys()
    os.kill(first, signal.SIGKILL)
    gateway.says("no registry answers, so it serves what it was told last")
    assert get(place.url).text == "ok"
    with Caller(place.url) as caller:
        caller.more(50)
        ads.open()
        gateway.says("reloaded")
        caller.more(50)
    assert caller.failed == []
    assert caller.refused == 0


@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hanging"])
def test_a_gateway_that_starts_without_a_registry_serves_what_it_was_told_last(
    start: Start, place: Place, ads: Ads, tmp_path: Path, hangs: bool
) -> None:
    first = start()
    first.says(READY)
    eventually("what it was told on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    first.signal(signal.SIGTERM)
    assert first.code() == 0
    ads.close()
    with hanging(ads) if hangs else nullcontext():
        second = start()
        second.says(READY)
        second.says("no registry answers, so it serves what it was told last")
        assert get(place.url).text == "ok"
        second.signal(signal.SIGTERM)
        assert second.code() == 0


@contextmanager
def hanging(ads: Ads) -> Iterator[None]:
    """Where the registry was, connections are accepted and nobody answers."""
    with socket.create_server(("127.0.0.1", ads.port), reuse_port=True):
        yield
