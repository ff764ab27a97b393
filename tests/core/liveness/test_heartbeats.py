"""The shared times of registry and consumers are consistent."""

from __future__ import annotations

from adsum.core.liveness.heartbeats import (
    DEFAULT_DRAIN_WAIT,
    MAX_FIRST_RETRY_DELAY,
    MAX_HEARTBEAT,
    MIN_HEARTBEAT,
    lost_after,
    stale_after,
)


def test_a_consumer_notices_silence_and_reconnects_before_it_is_lost() -> None:
    for heartbeat in (MIN_HEARTBEAT, 1.0, MAX_HEARTBEAT):
        assert stale_after(heartbeat) + MAX_FIRST_RETRY_DELAY < lost_after(heartbeat)


def test_silence_is_noticed_within_six_seconds_and_a_drain_outlasts_lost_consumers() -> None:
    assert stale_after(MAX_HEARTBEAT) <= 6.0
    assert lost_after(MAX_HEARTBEAT) <= DEFAULT_DRAIN_WAIT < 10.0
