from __future__ import annotations

from math import exp
from threading import Thread

import pytest

from adsum.balance.load_tracker import MIN_FAILURE_LATENCY, LoadTracker


def test_a_call_is_in_flight_until_it_ends() -> None:
    loads = LoadTracker()
    first, second, third = (loads.start("a") for _ in range(3))
    assert loads.load_of("a").in_flight == 3
    first.finish(True, 0.1, now=1.0)
    second.finish(False, 0.1, now=1.0)
    third.cancel()
    assert loads.load_of("a").in_flight == 0


def test_latency_rises_to_a_peak_at_once_and_falls_slowly() -> None:
    loads = LoadTracker(decay=10.0)
    loads.start("a").finish(True, 0.1, now=0.0)
    loads.start("a").finish(True, 2.0, now=1.0)
    assert loads.load_of("a").latency == 2.0
    loads.start("a").finish(True, 0.1, now=11.0)
    assert loads.load_of("a").latency == pytest.approx(2.0 * exp(-1) + 0.1 * (1 - exp(-1)))


def test_a_failure_counts_as_slow_and_a_cancelled_call_as_nothing() -> None:
    loads = LoadTracker()
    loads.start("a").finish(False, 0.001, now=0.0)
    loads.start("b").cancel()
    assert loads.load_of("a").latency == MIN_FAILURE_LATENCY
    assert loads.load_of("b").latency == 0.0


def test_loads_of_idle_endpoints_that_left_are_dropped_and_busy_ones_kept() -> None:
    loads = LoadTracker()
    busy = loads.start("busy")
    loads.start("idle").cancel()
    loads.start("there").cancel()
    loads.update_endpoints([], ["busy", "idle"])
    assert len(loads) == 2
    busy.finish(True, 0.1, now=0.0)
    assert loads.load_of("busy").in_flight == 0
    loads.update_endpoints([], [])
    assert len(loads) == 1


def test_the_load_of_a_busy_endpoint_that_came_back_is_kept() -> None:
    loads = LoadTracker()
    busy = loads.start("busy")
    loads.update_endpoints([], ["busy"])
    loads.update_endpoints(["busy"], [])
    busy.finish(True, 0.1, now=0.0)
    loads.update_endpoints([], [])
    assert loads.load_of("busy") is busy


def test_a_call_that_begins_just_after_its_endpoint_left_is_forgotten_later() -> None:
    loads = LoadTracker()
    loads.update_endpoints([], ["gone"])
    late = loads.start("gone")
    loads.update_endpoints([], [])
    assert len(loads) == 1
    late.cancel()
    loads.update_endpoints([], [])
    assert len(loads) == 0


def test_the_load_of_a_replaced_process_is_dropped_while_it_is_busy() -> None:
    loads = LoadTracker()
    busy = loads.start("a")
    loads.update_endpoints([], [], ["a"])
    assert loads.load_of("a") is not busy


def test_threads_lose_no_count() -> None:
    loads = LoadTracker()

    def call() -> None:
        for _ in range(2_000):
            loads.start("a").finish(True, 0.1, now=0.0)

    threads = [Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads.load_of("a").in_flight == 0
