"""SIGHUP with a real Envoy: a new Envoy takes over without a dropped request, or the old one keeps serving."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import (
    READY,
    GatewayAddresses,
    SlowCall,
    Start,
    SteadyCaller,
    UpstreamServer,
    get,
    has_exited,
    wait_until,
)


def test_requests_that_outlast_a_reload_are_cut_off_and_logged(
    start: Start, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    gateway = start("--drain-timeout", "1")
    gateway.wait_for_output(READY)
    slow_call = SlowCall(addresses, upstream)
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("requests on up to 1 connections are cut off; --drain-timeout gives them more time")
    assert slow_call.result() is None


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


def test_a_reload_with_wrong_settings_changes_nothing(
    start: Start, addresses: GatewayAddresses, tmp_path: Path
) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    before = gateway.envoys()
    (tmp_path / "adsum.toml").write_text('[gateway]\naccess_log = "xml"\n')
    gateway.signal(signal.SIGHUP)
    gateway.wait_for_output("gateway.access_log: must be json, text or off")
    assert gateway.envoys() == before
    assert get(addresses.url).text == "ok"


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
