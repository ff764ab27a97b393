"""The times that registry and consumers share fit into one another."""

from __future__ import annotations

from adsum.core.liveness.heartbeats import (
    DRAIN_WAIT,
    FIRST_PAUSE_MAX,
    HEARTBEAT_MAX,
    HEARTBEAT_MIN,
    lost_after,
    staleness,
)


def test_a_consumer_notices_and_comes_back_before_it_is_lost() -> None:
    for heartbeat in (HEARTBEAT_MIN, 1.0, HEARTBEAT_MAX):
        assert staleness(heartbeat) + FIRST_PAUSE_MAX < lost_after(heartbeat)


def test_silence_is_noticed_within_six_seconds_and_a_drain_outlasts_whoever_is_lost() -> None:
    assert staleness(HEARTBEAT_MAX) <= 6.0
    assert lost_after(HEARTBEAT_MAX) <= DRAIN_WAIT < 10.0
