from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from adsum.balance.load_tracker import MIN_FAILURE_LATENCY, LoadTracker
from adsum.balance.policies import policy
from tests.balance.builders import choices


def test_the_endpoint_of_two_with_fewer_calls_is_picked() -> None:
    loads = LoadTracker()
    picker = policy("least_request").build(choices(1, 1), loads, Random(1))
    loads.start("i-000")
    assert {picker.pick().id for _ in range(50)} == {"i-001"}


@pytest.mark.parametrize("policy_name", ["least_request", "peak_ewma"])
def test_calls_in_flight_settle_by_weight(policy_name: str) -> None:
    loads = LoadTracker()
    picker = policy(policy_name).build(choices(1, 2, 3), loads, Random(1))
    running = []
    for step in range(6_000):
        running.append(loads.start(picker.pick().id))
        if len(running) > 60:
            running.pop(0).finish(True, 0.1, now=step * 0.01)
    in_flight = [loads.load_of(f"i-{index:03}").in_flight for index in range(3)]
    assert in_flight == [pytest.approx(10, abs=4), pytest.approx(20, abs=4), pytest.approx(30, abs=4)]


def test_load_survives_a_rebuild() -> None:
    loads = LoadTracker()
    make = policy("least_request").build
    old = make(choices(1, 1), loads, Random(1))
    loads.start("i-001")
    new = make(choices(1, 1), loads, Random(1), old)
    assert {new.pick().id for _ in range(50)} == {"i-000"}


def test_the_busier_endpoint_is_picked_if_the_other_is_excluded() -> None:
    loads = LoadTracker()
    picker = policy("least_request").build(choices(1, 1, 1), loads, Random(1))
    loads.start("i-000")
    assert {picker.pick(exclude={"i-001"}).id for _ in range(50)} == {"i-002"}
    assert {picker.pick(exclude={"i-001", "i-002"}).id for _ in range(50)} == {"i-000"}


def finished(loads: LoadTracker, id: str, latency: float, now: float, ok: bool = True) -> None:
    loads.start(id).finish(ok, latency, now)


def test_the_faster_endpoint_gets_the_calls() -> None:
    loads = LoadTracker()
    picker = policy("peak_ewma").build(choices(1, 1), loads, Random(1))
    finished(loads, "i-000", 0.2, now=1.0)
    finished(loads, "i-001", 0.1, now=1.0)
    assert {picker.pick().id for _ in range(50)} == {"i-001"}
    loads.start("i-001")
    loads.start("i-001")
    assert {picker.pick().id for _ in range(50)} == {"i-000"}


def test_a_high_latency_decays_with_time() -> None:
    loads = LoadTracker(decay=10.0)
    picker = policy("peak_ewma").build(choices(1, 1), loads, Random(1))
    finished(loads, "i-000", 0.2, now=0.0)
    finished(loads, "i-001", 0.1, now=5.0)
    assert {picker.pick().id for _ in range(50)} == {"i-001"}
    finished(loads, "i-001", 0.1, now=10.0)
    assert {picker.pick().id for _ in range(50)} == {"i-000"}


def test_an_endpoint_without_a_latency_is_tried_but_not_flooded() -> None:
    loads = LoadTracker()
    picker = policy("peak_ewma").build(choices(1, 1), loads, Random(1))
    finished(loads, "i-000", 0.1, now=1.0)
    assert {picker.pick().id for _ in range(50)} == {"i-001"}
    loads.start("i-001")
    assert {picker.pick().id for _ in range(50)} == {"i-000"}


def test_an_endpoint_that_fails_fast_does_not_look_fast() -> None:
    loads = LoadTracker()
    picker = policy("peak_ewma").build(choices(1, 1), loads, Random(1))
    finished(loads, "i-000", 0.001, now=1.0, ok=False)
    finished(loads, "i-001", MIN_FAILURE_LATENCY / 2, now=1.0)
    assert {picker.pick().id for _ in range(50)} == {"i-001"}


def test_latencies_of_very_different_age_can_be_compared() -> None:
    loads = LoadTracker()
    picker = policy("peak_ewma").build(choices(1, 1), loads, Random(1))
    finished(loads, "i-000", 5.0, now=0.0)
    finished(loads, "i-001", 0.1, now=1e9)
    assert Counter(picker.pick().id for _ in range(50)) == {"i-000": 50}
