"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.token_bucket import TokenBucket


def test_a_burst_is_allowed_at_once_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=4.0, burst=2.0)
    assert [bucket.delay(100.0) for _ in range(2)] == [0.0, 0.0]
    assert bucket.delay(100.0) == 0.25
    assert bucket.delay(100.25) == 0.25


def test_events_that_did_not_wait_make_the_next_delay_longer() -> None:
    bucket = TokenBucket(rate=4.0, burst=2.0)
    assert [bucket.delay(100.0) for _ in range(4)] == [0.0, 0.0, 0.25, 0.5]


def test_an_idle_bucket_holds_no_more_than_its_burst() -> None:
    bucket = TokenBucket(rate=4.0, burst=2.0)
    bucket.delay(100.0)
    assert [bucket.delay(10_000.0) for _ in range(3)] == [0.0, 0.0, 0.25]


def test_a_clock_that_starts_at_zero_begins_with_a_full_bucket() -> None:
    assert [TokenBucket(rate=1.0, burst=1.0).delay(now) for now in (0.0, 5.0)] == [0.0, 0.0]


@given(st.lists(st.floats(0.0, 2.0), max_size=60))
def test_events_that_wait_never_exceed_the_rate_and_burst(lags: list[float]) -> None:
    rate, burst = 4.0, 8.0
    bucket, now, events = TokenBucket(rate, burst), 0.0, list[float]()
    for lag in lags:
        now += lag
        now += bucket.delay(now)
        events.append(now)
    for number, first in enumerate(events):
        for count, last in enumerate(events[number:], 1):
            assert count <= burst + (last - first) * rate + 1.001
