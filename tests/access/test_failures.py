"""Wrong credentials are slowed down by address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.access.failures import FAILURE_BURST, MAX_FAILING_ADDRESSES, MAX_FAILURE_DELAY, FailureLimiter, site_of
from adsum.client.native.request_sender import REQUEST_TIMEOUT


def test_the_first_failures_are_not_delayed_and_further_ones_more_and_more() -> None:
    limiter = FailureLimiter()
    assert [limiter.delay("10.0.0.1", 5.0) for _ in range(int(FAILURE_BURST))] == [0.0] * int(FAILURE_BURST)
    delays = [limiter.delay("10.0.0.1", 5.0) for _ in range(20)]
    assert delays == sorted(delays)
    assert 0.0 < delays[0] < delays[-1] == MAX_FAILURE_DELAY
    assert limiter.delay("10.0.0.2", 5.0) == 0.0


def test_a_long_attack_is_forgotten_soon_after_it() -> None:
    limiter = FailureLimiter()
    for _ in range(10_000):
        limiter.delay("10.0.0.1", 5.0)
    after = 5.0 + MAX_FAILURE_DELAY + FAILURE_BURST + 1.0
    assert limiter.delay("10.0.0.1", after) == 0.0


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:4711", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("[2001:db8:1:2:ffff::1]:80", "2001:db8:1:2::"),
        ("::1", "::"),
        ("fe80::1%eth0", "fe80::"),
        ("unix", "unix"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_the_site_of_an_address(address: str, site: str) -> None:
    assert site_of(address) == site


def test_another_port_or_another_address_of_the_same_ipv6_site_is_no_way_around() -> None:
    limiter = FailureLimiter()
    for number in range(int(FAILURE_BURST)):
        limiter.delay(f"[2001:db8::{number:x}]:{number + 1}", 5.0)
    assert limiter.delay("2001:db8::ffff", 5.0) > 0.0
    assert len(limiter) == 1


def test_the_number_of_addresses_is_bounded_and_the_oldest_is_forgotten() -> None:
    limiter = FailureLimiter()
    for _ in range(50):
        limiter.delay("first", 5.0)
        limiter.delay("second", 5.0)
    limiter.delay("first", 5.0)
    for number in range(MAX_FAILING_ADDRESSES - 1):
        limiter.delay(f"host-{number}", 5.0)
    assert len(limiter) == MAX_FAILING_ADDRESSES
    assert limiter.delay("first", 5.0) > 0.0
    assert limiter.delay("second", 5.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from(["a", "10.0.0.1", "::1"]), st.floats(0.0, 100.0)), max_size=60))
def test_a_delay_is_never_negative_or_longer_than_the_most(failures: list[tuple[str, float]]) -> None:
    limiter, now = FailureLimiter(), 0.0
    for address, wait in failures:
        now += wait
        assert 0.0 <= limiter.delay(address, now) <= MAX_FAILURE_DELAY


def test_a_delayed_answer_arrives_before_our_clients_stop_waiting_for_it() -> None:
    assert MAX_FAILURE_DELAY <= REQUEST_TIMEOUT - 2.0
