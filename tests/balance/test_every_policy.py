"""The contract of every policy in the table."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import EmptyPicker, NoEndpoint, Picker
from adsum.balance.policies import POLICIES, UnknownPolicy, policy
from adsum.core.weighted_endpoints import WeightedEndpoints
from tests.balance.builders import build, choice, choices, picks

MANY = 20_000
UNLIKELY = 40.0
"""A chi-square of few degrees of freedom that a correct distribution does not reach."""
RING_UNEVENNESS = 0.35
RING_POINT = 0.005
"""The share of one point: a ring can't give a smaller one."""


@pytest.fixture(params=list(POLICIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_by_weight(name: str, counts: Counter[str], weights: dict[str, float]) -> None:
    whole, drawn = sum(weights.values()), counts.total()
    expected = {id: weight * drawn / whole for id, weight in weights.items()}
    assert counts.keys() <= expected.keys()
    if name == "ring_hash":
        assert all(
            abs(counts[id] - share) < RING_UNEVENNESS * share + RING_POINT * drawn for id, share in expected.items()
        )
    else:
        assert sum((counts[id] - expected[id]) ** 2 / expected[id] for id in expected) < UNLIKELY


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 3.0, 4.0), (0.25, 1.0, 7.5), (1.0, 1000.0)])
def test_an_idle_consumer_picks_by_weight(name: str, weights: tuple[float, ...]) -> None:
    candidates = choices(*weights)
    counts = Counter(picks(build(name, candidates), MANY))
    assert_by_weight(name, counts, {candidate.endpoint.id: candidate.weight for candidate in candidates})


def test_without_a_key_any_endpoint_is_picked_by_weight(name: str) -> None:
    candidates = choices(1, 2, 3)
    picker = build(name, candidates)
    counts = Counter(picker.pick().id for _ in range(MANY))
    assert_by_weight(name, counts, {candidate.endpoint.id: candidate.weight for candidate in candidates})


def test_the_same_seed_gives_the_same_picks(name: str) -> None:
    candidates = choices(1, 2, 3, 4)
    assert picks(build(name, candidates, seed=7), 100) == picks(build(name, candidates, seed=7), 100)


def test_many_consumers_do_not_all_start_with_the_same_endpoint(name: str) -> None:
    candidates = choices(*[1.0] * 10)
    first = Counter(build(name, candidates, seed=seed).pick().id for seed in range(100 if name != "maglev" else 20))
    assert len(first) > 5


def test_an_empty_picker_raises(name: str) -> None:
    with pytest.raises(NoEndpoint, match="no endpoint"):
        build(name, []).pick("key", {"i-000"})


def test_a_single_endpoint_is_always_picked(name: str) -> None:
    assert set(picks(build(name, choices(3)), 50)) == {"i-000"}


def test_an_endpoint_of_weight_zero_is_not_picked_while_another_has_a_weight(name: str) -> None:
    assert set(picks(build(name, choices(0, 1, 0, 2)), 2_000)) == {"i-001", "i-003"}


def test_if_all_weights_are_zero_all_are_picked_equally_often(name: str) -> None:
    candidates = choices(0, 0, 0)
    assert_by_weight(
        name, Counter(picks(build(name, candidates), MANY)), {candidate.endpoint.id: 1.0 for candidate in candidates}
    )


@pytest.mark.parametrize("weights", [(1, 1, 1, 1, 1), (1, 2, 3, 4, 5)])
def test_an_excluded_endpoint_is_not_picked_and_all_others_are(name: str, weights: tuple[float, ...]) -> None:
    picker = build(name, choices(*weights))
    assert set(picks(picker, 2_000, exclude={"i-001", "i-004"})) == {"i-000", "i-002", "i-003"}


def test_the_heavy_endpoint_can_be_excluded(name: str) -> None:
    picker = build(name, choices(1, 1000, 1))
    assert set(picks(picker, 300, exclude={"i-001"})) == {"i-000", "i-002"}


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (1, 2, 3)])
def test_excluding_every_endpoint_is_an_error(name: str, weights: tuple[float, ...]) -> None:
    picker = build(name, choices(*weights))
    with pytest.raises(NoEndpoint, match="excluded"):
        picker.pick("key", {candidate.endpoint.id for candidate in picker.choices})
    assert picker.pick("key", set())


def test_excluding_unknown_ids_changes_nothing(name: str) -> None:
    picker = build(name, choices(1, 2))
    assert set(picks(picker, 500, exclude={"gone", "also-gone"})) == {"i-000", "i-001"}


def test_a_picker_does_not_change_with_the_list_it_was_built_from(name: str) -> None:
    candidates = choices(1, 1, 1)
    picker = build(name, candidates)
    before = picker.choices
    candidates.clear()
    assert picker.choices == before
    assert set(picks(picker, 500)) == {"i-000", "i-001", "i-002"}
    with pytest.raises(AttributeError):
        picker.choices.append(choice("new"))  # type: ignore[attr-defined]


def test_a_rebuilt_picker_picks_exactly_the_new_endpoints(name: str) -> None:
    old = build(name, choices(1, 2, 3))
    picks(old, 17)
    candidates = [*choices(1, 2, 3)[1:], choice("new", 2)]
    new = build(name, candidates, seed=2, previous=old)
    assert_by_weight(
        name, Counter(picks(new, MANY)), {candidate.endpoint.id: candidate.weight for candidate in candidates}
    )
    assert set(picks(old, 500)) == {"i-000", "i-001", "i-002"}


def test_a_rebuilt_picker_returns_the_new_endpoint_objects(name: str) -> None:
    old = build(name, choices(1, 2))
    candidates = choices(1, 2)
    new = build(name, candidates, previous=old)
    assert {id(new.pick(f"{index}")) for index in range(200)} == {id(candidate.endpoint) for candidate in candidates}


def test_a_picker_can_replace_one_of_another_policy_or_an_empty_one(name: str) -> None:
    for other in POLICIES:
        for candidates in (choices(1, 2), []):
            new = build(name, choices(1, 1, 4), previous=build(other, candidates))
            assert set(picks(new, 500)) == {"i-000", "i-001", "i-002"}


HISTORY = st.lists(
    st.dictionaries(st.integers(0, 30).map(lambda n: f"i-{n:03}"), st.sampled_from([None, 1, 1, 1, 2, 5]), max_size=5),
    min_size=1,
    max_size=8,
)
"""Changes of weights; None removes the endpoint."""


@given(HISTORY, st.booleans(), st.integers(0, 99))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_picker_with_a_history_picks_as_one_without(
    name: str, history: list[dict[str, float | None]], is_equal: bool, seed: int
) -> None:
    loads, rng = LoadTracker(), Random(seed)
    weights: dict[str, float] = {}
    picker: Picker | None = None
    known = {f"i-{n:03}": choice(f"i-{n:03}").endpoint for n in range(31)}
    for step, changes in enumerate(history if name != "maglev" else history[:2]):
        for id, weight in changes.items():
            weights.pop(id, None)
            if weight is not None:
                weights[id] = 1 if is_equal else weight
        ids = sorted(weights)
        candidates = WeightedEndpoints(tuple(map(known.__getitem__, ids)), tuple(weights[id] for id in ids))
        if ids:
            loads.start(ids[seed % len(ids)])
            loads.start(ids[step % len(ids)]).finish(True, 0.1 * step, now=step)
        before = picker
        picker = policy(name).build(candidates, loads, rng, before)
        assert picker.choices == candidates
        if candidates:
            # A rotation goes on where the picker before it was.
            previous = before if name == "round_robin" else None
            new = policy(name).build(list(candidates), loads, rng, previous)
            rng.seed(seed)
            found = [picker.pick(f"key-{n}") for n in range(40)]
            if name != "round_robin" or (before is not None and not isinstance(before, EmptyPicker)):
                rng.seed(seed)
                assert found == [new.pick(f"key-{n}") for n in range(40)]


def test_repeated_rebuilds_leave_no_endpoint_out(name: str) -> None:
    picker = build(name, choices(1, 2, 3))
    counts: Counter[str] = Counter()
    for index in range(600 if name != "maglev" else 60):
        picker = build(name, choices(1, 2, 3), seed=index, previous=picker)
        counts[picker.pick(f"key-{index}").id] += 1
    assert_by_weight(name, counts, {"i-000": 1, "i-001": 2, "i-002": 3})


def test_an_unknown_policy_is_refused_with_the_names_of_all_policies() -> None:
    with pytest.raises(UnknownPolicy, match=r"nonsense.*round_robin.*maglev"):
        policy("nonsense")
