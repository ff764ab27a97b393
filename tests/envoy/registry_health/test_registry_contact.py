"""A gateway's contact with its registry: how it reports a loss, and a registry that rejects it."""

from __future__ import annotations

import math

import pytest

from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.envoy.metrics.monitor import PROBLEM_BODIES, PROBLEM_KEYS, READY_BODY, REGISTRY_LOST_BODY
from adsum.envoy.process.envoy_log import CREDENTIAL_REFUSALS, EnvoyLog
from adsum.envoy.registry_health.registry_contact import (
    LOST_AFTER,
    ContactProblem,
    RegistryContact,
    contact_problem,
)
from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import READY, GatewayAddresses, Start, get, wait_until

NEVER = -math.inf
REASON = "a name or version may have at most 512 characters"


def test_a_registry_is_lost_after_a_while_and_connected_again_at_once() -> None:
    contact = RegistryContact(100.0)
    assert not contact.update(100.0 + LOST_AFTER - 0.1, connected=False, received=0, refused_at=NEVER)
    assert contact.update(100.0 + LOST_AFTER, connected=False, received=0, refused_at=NEVER)
    assert contact.update(121.0, connected=True, received=5, refused_at=NEVER)
    assert not contact.update(122.0, connected=True, received=9, refused_at=NEVER)


def test_a_hung_registry_is_lost_although_its_connection_is_open() -> None:
    contact = RegistryContact(0.0)
    assert not contact.update(1.0, connected=True, received=9, refused_at=NEVER)
    assert not contact.update(LOST_AFTER, connected=True, received=9, refused_at=NEVER)
    assert contact.update(1.0 + LOST_AFTER, connected=True, received=9, refused_at=NEVER)
    assert contact.is_lost


def test_a_registry_that_ends_every_stream_is_lost() -> None:
    contact = RegistryContact(0.0)
    for second in range(1, math.ceil(LOST_AFTER) + 1):
        contact.update(float(second), connected=True, received=second, refused_at=second - 0.5)
    assert contact.is_lost


def test_a_gateway_reports_the_loss_before_a_drain_stops_waiting_for_it() -> None:
    assert LOST_AFTER <= DEFAULT_DRAIN_WAIT


def test_the_reason_of_a_refusal_is_read_from_envoys_log() -> None:
    log = EnvoyLog(lambda: 7.0)
    stream = "[warning][config] DeltaAggregatedResources gRPC config stream to adsum_registry closed"
    log.feed(f"{stream}: 14, upstream connect error or disconnect/reset before headers\n".encode())
    log.feed(f"{stream}: 13, upstream_reset_after_response_started{{connection_termination}}\n".encode())
    before = log.refusal
    log.feed(f"{stream}: 3, {REASON}\n".encode())
    assert (before, log.refusal, log.refused_at) == ("", REASON, 7.0)
    log.feed(f"{stream} since 30s ago: 8, no room, at all\n".encode())
    assert log.refusal == "no room, at all"


@pytest.mark.parametrize(("code", "credentials"), [(3, False), (7, True), (8, False), (12, False), (16, True)])
def test_a_refusal_of_the_gateways_identity_is_told_from_others(code: int, credentials: bool) -> None:
    log = EnvoyLog(lambda: 7.0)
    stream = "[warning][config] DeltaAggregatedResources gRPC config stream to adsum_registry closed"
    log.feed(f"{stream}: {code}, the token edge was revoked{{via_upstream}}\n".encode())
    assert log.refusal == "the token edge was revoked", "without Envoy's own words"
    assert (log.refusal_code in CREDENTIAL_REFUSALS) is credentials


@pytest.mark.parametrize(
    ("is_lost", "is_refused", "has_expired", "problem"),
    [
        (False, True, True, None),
        (True, False, False, ContactProblem.LOST),
        (True, True, False, ContactProblem.REFUSED),
        (True, False, True, ContactProblem.EXPIRED),
        (True, True, True, ContactProblem.REFUSED),
    ],
)
def test_a_lost_contact_has_one_reason(
    is_lost: bool, is_refused: bool, has_expired: bool, problem: ContactProblem | None
) -> None:
    assert contact_problem(is_lost=is_lost, is_refused=is_refused, has_expired=has_expired) is problem


def test_each_problem_has_a_key_and_a_body_of_its_own() -> None:
    assert set(PROBLEM_KEYS) == set(PROBLEM_BODIES) == set(ContactProblem)
    assert len(set(PROBLEM_KEYS.values())) == len(set(PROBLEM_BODIES.values())) == len(ContactProblem)
    assert all(body.startswith("ready, but ") for body in PROBLEM_BODIES.values())


def test_a_gateway_without_contact_says_so_and_keeps_serving(
    start: Start, addresses: GatewayAddresses, ads: AdsServer
) -> None:
    gateway = start()
    gateway.wait_for_output(READY)
    ready = f"{addresses.monitor_url}/readyz"
    assert get(ready).text == READY_BODY
    ads.close()
    wait_until("the body of /readyz", lambda: get(ready).text == REGISTRY_LOST_BODY)
    assert get(ready).status_code == get(addresses.url).status_code == 200
    gateway.wait_for_output(f"no contact with the registry for {LOST_AFTER:g} s")
    ads.open()
    wait_until("the body of /readyz", lambda: get(ready).text == READY_BODY)
    gateway.wait_for_output("the registry is connected again")


def test_a_rejected_gateway_logs_the_registrys_reason(
    start: Start, addresses: GatewayAddresses, ads: AdsServer
) -> None:
    ads.refusal = REASON
    gateway = start()
    gateway.wait_for_output(
        f"the gateway does not accept requests yet: the registry at {ads.address} rejects this gateway: {REASON}"
    )
    ads.refusal = ""
    gateway.wait_for_output(READY)
    assert get(addresses.url).status_code == 200
