from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.backoff import Backoff, jittered, renewal_delay

seeds = st.integers(0, 2**32)


@given(seeds, st.floats(0.001, 10), st.floats(1, 1000), st.integers(1, 50))
def test_every_delay_is_between_the_initial_and_the_maximum(seed: int, first: float, factor: float, times: int) -> None:
    rng, backoff = Random(seed), Backoff(first, first * factor)
    last = first
    for _ in range(times):
        delay = backoff.next(rng)
        assert first <= delay <= min(first * factor, max(first, last * 3))
        last = delay


def test_delays_grow_to_the_maximum_and_start_short_again_after_a_success() -> None:
    rng, backoff = Random(1), Backoff(0.1, 30.0)
    delays = [backoff.next(rng) for _ in range(100)]
    assert max(delays) == 30.0
    backoff.reset()
    assert backoff.next(rng) <= 0.3


def test_two_clients_that_failed_together_have_different_delays() -> None:
    a, b = Backoff(0.1, 30.0), Backoff(0.1, 30.0)
    assert a.next(Random(1)) != b.next(Random(2))


def test_delays_that_cant_grow_are_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0 and grow"):
        Backoff(0.0, 1.0)
    with pytest.raises(ValueError, match="must be above 0 and grow"):
        Backoff(2.0, 1.0)


@given(seeds, st.floats(1.0, 86_400.0))
def test_three_renewals_fit_about_one_ttl(seed: int, ttl: float) -> None:
    assert ttl / 3 * 0.899 <= renewal_delay(ttl, Random(seed)) <= ttl / 3 * 1.101


@given(seeds, st.floats(0.0, 1000.0), st.floats(0.0, 1.0))
def test_jitter_stays_within_its_share(seed: int, length: float, share: float) -> None:
    delay = jittered(length, Random(seed), share)
    assert length * (1 - share) - 1e-9 <= delay <= length * (1 + share) + 1e-9
