"""What a gateway says of its registry: whether it hears one, and why one will not have it."""

from __future__ import annotations

import math

from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.envoy.metrics.monitor import READY_BODY, REGISTRY_LOST_BODY
from adsum.envoy.process.envoy_log import EnvoyLog
from adsum.envoy.registry_health.registry_contact import LOST_AFTER, RegistryContact
from tests.envoy.ads_server import AdsServer
from tests.envoy.conftest import GatewayAddresses, Start, wait_until
from tests.envoy.test_gateway import READY as LISTENS
from tests.envoy.test_gateway import get

NEVER = -math.inf
WORDS = "a name or version may have at most 512 characters"


def test_a_registry_is_lost_after_a_while_and_heard_again_at_once() -> None:
    hearing = RegistryContact(100.0)
    assert not hearing.update(100.0 + LOST_AFTER - 0.1, connected=False, received=0, refused_at=NEVER)
    assert hearing.update(100.0 + LOST_AFTER, connected=False, received=0, refused_at=NEVER)
    assert hearing.update(121.0, connected=True, received=5, refused_at=NEVER)
    assert not hearing.update(122.0, connected=True, received=9, refused_at=NEVER)


def test_a_registry_that_hangs_is_lost_although_its_connection_stands() -> None:
    hearing = RegistryContact(0.0)
    assert not hearing.update(1.0, connected=True, received=9, refused_at=NEVER)
    assert not hearing.update(LOST_AFTER, connected=True, received=9, refused_at=NEVER)
    assert hearing.update(1.0 + LOST_AFTER, connected=True, received=9, refused_at=NEVER)
    assert hearing.is_lost


def test_a_registry_that_ends_every_stream_is_not_heard() -> None:
    hearing = RegistryContact(0.0)
    for second in range(1, math.ceil(LOST_AFTER) + 1):
        hearing.update(float(second), connected=True, received=second, refused_at=second - 0.5)
    assert hearing.is_lost


def test_a_gateway_says_that_it_is_on_its_own_before_a_drain_ends_its_wait() -> None:
    assert LOST_AFTER <= DEFAULT_DRAIN_WAIT


def test_the_reason_of_a_refusal_is_read_from_what_envoy_says() -> None:
    lines = EnvoyLog(lambda: 7.0)
    stream = "[warning][config] DeltaAggregatedResources gRPC config stream to adsum_registry closed"
    lines.feed(f"{stream}: 14, upstream connect error or disconnect/reset before headers\n".encode())
    lines.feed(f"{stream}: 13, upstream_reset_after_response_started{{connection_termination}}\n".encode())
    before = lines.refusal
    lines.feed(f"{stream}: 3, {WORDS}\n".encode())
    assert (before, lines.refusal, lines.refused_at) == ("", WORDS, 7.0)
    lines.feed(f"{stream} since 30s ago: 8, no room, at all\n".encode())
    assert lines.refusal == "no room, at all"


def test_a_gateway_that_hears_no_registry_says_so_and_serves_on(
    start: Start, place: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start()
    gateway.wait_for_output(LISTENS)
    ready = f"{place.monitor_url}/readyz"
    assert get(ready).text == READY_BODY
    ads.close()
    wait_until("its word", lambda: get(ready).text == REGISTRY_LOST_BODY)
    assert get(ready).status_code == get(place.url).status_code == 200
    gateway.wait_for_output(f"no registry has been heard for {LOST_AFTER:g} s")
    ads.open()
    wait_until("its word", lambda: get(ready).text == READY_BODY)
    gateway.wait_for_output("a registry is heard again")


def test_a_gateway_that_is_refused_says_what_the_registry_said(
    start: Start, place: GatewayAddresses, ads: AdsServer
) -> None:
    ads.refusal = WORDS
    gateway = start()
    gateway.wait_for_output(f"it takes no requests yet: the registry at {ads.address} refuses this gateway: {WORDS}")
    ads.refusal = ""
    gateway.wait_for_output(LISTENS)
    assert get(place.url).status_code == 200
