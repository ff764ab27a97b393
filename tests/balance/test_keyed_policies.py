from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from adsum.balance.picker import Picker
from adsum.balance.policies import POLICIES, policy
from adsum.balance.ring_hash import MAX_RING_POINTS, RingHashPicker
from tests.balance.builders import build, choice, choices, picks

KEYS = 5_000


@pytest.fixture(params=[name for name in POLICIES if policy(name).keyed])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def moved(before: Picker, after: Picker, leaver: str = "", comer: str = "") -> float:
    """Returns the share of keys that moved although neither the leaver nor the comer had them."""
    pairs = zip(picks(before, KEYS), picks(after, KEYS), strict=True)
    return sum(old not in (new, leaver) and new != comer for old, new in pairs) / KEYS


def test_the_same_key_goes_to_the_same_endpoint_for_every_consumer(name: str) -> None:
    candidates = choices(1, 2, 3, 4)
    shuffled = candidates.copy()
    Random(3).shuffle(shuffled)
    assert picks(build(name, candidates, seed=1), 500) == picks(build(name, shuffled, seed=2), 500)


def test_text_and_its_bytes_are_the_same_key(name: str) -> None:
    picker = build(name, choices(*[1.0] * 50))
    assert picker.pick("Zoë").id == picker.pick("Zoë".encode()).id
    assert picker.pick("\ud800").id == picker.pick("\ud800").id


@pytest.mark.parametrize("history", [True, False])
def test_few_keys_move_when_an_endpoint_leaves(name: str, history: bool) -> None:
    candidates = choices(*[1.0] * 20)
    before = build(name, candidates)
    after = build(name, candidates[:7] + candidates[8:], previous=before if history else None)
    assert moved(before, after, leaver="i-007") < (0.001 if name == "ring_hash" else 0.03)


def test_few_keys_move_when_an_endpoint_comes(name: str) -> None:
    candidates = choices(*[1.0] * 20)
    before = build(name, candidates)
    assert moved(before, build(name, [*candidates, choice("new")]), comer="new") < (
        0.001 if name == "ring_hash" else 0.03
    )


def test_few_keys_move_when_a_weight_changes(name: str) -> None:
    before = build(name, choices(*[2.0] * 20))
    after = build(name, choices(*[2.0] * 19, 1.0))
    assert sum(old != new for old, new in zip(picks(before, KEYS), picks(after, KEYS), strict=True)) / KEYS < 0.1


def test_a_rebuilt_picker_agrees_with_one_built_from_nothing(name: str) -> None:
    picker = None
    for candidates in (choices(1, 1, 1, 1), choices(1, 1, 1), choices(1, 5, 1, 2), choices(1, 5, 1, 2), choices(3)):
        picker = build(name, candidates, previous=picker)
        assert picks(picker, 500) == picks(build(name, candidates, seed=9), 500)


def test_the_second_choice_of_a_key_is_fixed_too(name: str) -> None:
    candidates = choices(*[1.0] * 10)
    one, other = build(name, candidates, seed=1), build(name, candidates, seed=2)
    for index in range(200):
        first = one.pick(f"{index}").id
        second = one.pick(f"{index}", {first}).id
        assert second != first
        assert other.pick(f"{index}", {first}).id == second


def test_the_keys_of_an_excluded_endpoint_go_to_many_others(name: str) -> None:
    picker = build(name, choices(*[1.0] * 10))
    others = {
        picker.pick(key, {"i-003"}).id
        for key in (f"{index}" for index in range(2_000))
        if picker.pick(key).id == "i-003"
    }
    assert len(others) > 5


def test_a_ring_is_bounded_and_has_a_point_of_every_endpoint() -> None:
    picker = build("ring_hash", choices(*[1.0] * 1_000, 1e-6))
    assert isinstance(picker, RingHashPicker)
    assert sum(picker._counts.values()) <= MAX_RING_POINTS + 1_001
    assert min(picker._counts.values()) == 1


def test_maglev_shares_are_even_to_a_slot() -> None:
    from adsum.balance.maglev import TABLE_SIZE, MaglevPicker

    picker = build("maglev", choices(1, 2, 3, 4))
    assert isinstance(picker, MaglevPicker)
    counts = Counter(picker.slots)
    for index in range(4):
        assert abs(counts[index] - TABLE_SIZE * (index + 1) / 10) <= 2
