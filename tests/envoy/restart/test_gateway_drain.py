"""SIGTERM with a real Envoy: the gateway finishes its requests, within limits."""

from __future__ import annotations

import signal

import httpx
import pytest

from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import (
    READY,
    GatewayAddresses,
    SlowCall,
    Start,
    SteadyCaller,
    UpstreamServer,
    answers,
    get,
    has_exited,
    wait_until,
)


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
    slow_call = SlowCall(addresses, upstream)
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
    response = slow_call.result()
    assert response is not None
    assert (response.text, response.headers["connection"]) == ("ok", "close")
    assert gateway.wait_for_exit() == 0


def test_requests_beyond_the_drain_timeout_are_cut_off_and_logged(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "0.5")
    gateway.wait_for_output(READY)
    slow_call = SlowCall(addresses, upstream)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 0
    assert "requests still in progress: 1; they are cut off" in gateway.output
    assert slow_call.result() is None


def test_a_second_signal_ends_the_gateway_at_once(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "1h")
    gateway.wait_for_output(READY)
    (envoy,) = gateway.envoys()
    slow_call = SlowCall(addresses, upstream)
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("draining")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_for_exit() == 128 + signal.SIGTERM
    assert has_exited(envoy)
    assert list(gateway.tmp.iterdir()) == []
    assert slow_call.result() is None


def test_without_process_access_sigterm_finishes_requests(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60", "--no-process-access")
    gateway.wait_for_output(READY)
    slow_call = SlowCall(addresses, upstream)
    gateway.signal(signal.SIGTERM)
    wait_until("the listener to close", lambda: not answers(addresses.url))
    wait_until("the monitor to close, too", lambda: not answers(f"{addresses.monitor_url}/healthz"))
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    response = slow_call.result()
    assert response is not None
    assert response.text == "ok"
    assert gateway.wait_for_exit() == 0


def test_sigterm_during_a_takeover_finishes_requests(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "60")
    gateway.wait_for_output(READY)
    slow_call = SlowCall(addresses, upstream)
    ads.silent = True
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("the gateway does not accept requests yet")
    gateway.signal(signal.SIGTERM)
    gateway.wait_for_output("it is ended once no client is connected")
    with pytest.raises(httpx.ConnectError):
        get(addresses.url)
    assert gateway.process.poll() is None
    upstream.release_slow.set()
    response = slow_call.result()
    assert response is not None
    assert response.text == "ok"
    assert gateway.wait_for_exit() == 0
    assert list(gateway.tmp.iterdir()) == []
