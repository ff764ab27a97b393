from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.errors import Invalid
from adsum.core.model import Endpoint, Instance, Status
from adsum.core.selection import (
    DECLARED_STATUSES,
    USABLE_STATUSES,
    EndpointSelector,
    Selection,
    SelectionOptions,
    select_endpoints,
)

PASSING, WARNING, STARTING = Status.PASSING, Status.WARNING, Status.STARTING
CRITICAL, DRAINING, MAINTENANCE = Status.CRITICAL, Status.DRAINING, Status.MAINTENANCE


def endpoint(id: str, status: Status = PASSING, zone: str = "", weight: int = 1) -> Endpoint:
    return Endpoint(Instance("orders", id, "10.0.0.1", 80, zone=zone, weight=weight), status)


def view(*statuses: Status, zone: str = "", prefix: str = "i") -> list[Endpoint]:
    return [endpoint(f"{prefix}-{index}", status, zone) for index, status in enumerate(statuses)]


def ids(selection: Selection) -> list[str]:
    return [choice.endpoint.id for choice in selection.endpoints]


def share(selection: Selection, prefix: str) -> float:
    """The share of calls to the endpoints whose ids start with `prefix`."""
    whole = sum(choice.weight for choice in selection.endpoints)
    return sum(choice.weight for choice in selection.endpoints if choice.endpoint.id.startswith(prefix)) / whole


ENDPOINTS = st.lists(
    st.builds(
        endpoint,
        st.uuids().map(str),
        st.sampled_from(Status),
        st.sampled_from(["", "a", "b"]),
        st.integers(0, 5),
    ),
    max_size=20,
)
OPTIONS = st.builds(
    SelectionOptions, zone=st.sampled_from(["", "a"]), panic_threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0])
)


@given(ENDPOINTS, OPTIONS, st.data())
def test_draining_and_maintenance_endpoints_are_never_selected(
    endpoints: list[Endpoint], options: SelectionOptions, data: st.DataObject
) -> None:
    ejected = data.draw(st.sets(st.sampled_from([candidate.id for candidate in endpoints]))) if endpoints else set()
    selection = select_endpoints(endpoints, options, ejected=ejected)
    assert all(choice.endpoint.status not in DECLARED_STATUSES for choice in selection.endpoints)
    assert all(choice.weight > 0.0 for choice in selection.endpoints)
    assert len(set(ids(selection))) == len(selection.endpoints)


@given(ENDPOINTS, OPTIONS, st.data())
def test_unhealthy_endpoints_are_selected_only_in_a_panic(
    endpoints: list[Endpoint], options: SelectionOptions, data: st.DataObject
) -> None:
    ejected = data.draw(st.sets(st.sampled_from([candidate.id for candidate in endpoints]))) if endpoints else set()
    selection = select_endpoints(endpoints, options, ejected=ejected)
    if not selection.is_panicking:
        assert all(
            choice.endpoint.status in USABLE_STATUSES and choice.endpoint.id not in ejected
            for choice in selection.endpoints
        )


@given(ENDPOINTS, OPTIONS)
def test_something_is_selected_unless_all_are_draining_or_in_maintenance(
    endpoints: list[Endpoint], options: SelectionOptions
) -> None:
    undeclared = [candidate for candidate in endpoints if candidate.status not in DECLARED_STATUSES]
    usable = [candidate for candidate in undeclared if candidate.status in USABLE_STATUSES]
    selection = select_endpoints(endpoints, options)
    assert bool(selection.endpoints) == bool(usable or (undeclared and options.panic_threshold))


@given(ENDPOINTS, OPTIONS)
def test_the_reported_shares_equal_the_weights(endpoints: list[Endpoint], options: SelectionOptions) -> None:
    selection = select_endpoints(endpoints, options)
    if selection.endpoints:
        whole = sum(choice.weight for choice in selection.endpoints)
        spilled = sum(choice.weight for choice in selection.endpoints if options.zone not in ("", choice.endpoint.zone))
        degraded = sum(choice.weight for choice in selection.endpoints if choice.endpoint.status is not PASSING)
        assert selection.spilled_share == pytest.approx(spilled / whole)
        assert selection.degraded_share == pytest.approx(degraded / whole)


STEPS = st.lists(
    st.tuples(
        st.dictionaries(
            st.integers(0, 15).map(lambda n: f"i-{n:02}"),
            st.none() | st.tuples(st.sampled_from(Status), st.sampled_from(["", "a", "b"]), st.integers(0, 3)),
            max_size=6,
        ),
        st.sets(st.integers(0, 15).map(lambda n: f"i-{n:02}"), max_size=3),
        st.dictionaries(st.integers(0, 15).map(lambda n: f"i-{n:02}"), st.sampled_from([0.1, 0.7]), max_size=2),
    ),
    max_size=10,
)
"""Changes of a view (None: the endpoint left), the ejected ids, and the factors of slow start."""


@given(STEPS, OPTIONS)
def test_a_selector_that_follows_a_view_selects_as_one_that_is_new(
    steps: list[tuple[dict[str, tuple[Status, str, int] | None], set[str], dict[str, float]]], options: SelectionOptions
) -> None:
    selector, known = EndpointSelector(options), dict[str, Endpoint]()
    for changes, ejected, factors in steps:
        for id, change in changes.items():
            known.pop(id, None)
            if change is not None:
                known[id] = endpoint(id, *change)
        endpoints = tuple(known[id] for id in sorted(known))
        selection = selector.select(endpoints, ejected=ejected, slow_start_factors=factors)
        expected = select_endpoints(endpoints, options, ejected=ejected, slow_start_factors=factors)
        assert selection == expected
        assert selection.endpoints.is_by_id


def test_a_selection_of_a_whole_view_shares_its_endpoints() -> None:
    endpoints = tuple(view(PASSING, PASSING, PASSING))
    assert EndpointSelector().select(endpoints).endpoints.endpoints is endpoints


def test_endpoints_in_any_order_keep_it() -> None:
    endpoints = [endpoint("b"), endpoint("c", CRITICAL), endpoint("a")]
    assert ids(select_endpoints(endpoints)) == ["b", "a"]
    options = SelectionOptions(panic_threshold=0.0)
    assert ids(select_endpoints(endpoints, options, ejected={"b"}, slow_start_factors={"a": 0.5})) == ["a"]


def test_passing_endpoints_keep_their_declared_weights() -> None:
    selection = select_endpoints([endpoint("a", weight=3), endpoint("b", weight=5), endpoint("c", CRITICAL)])
    assert [choice.weight for choice in selection.endpoints] == [3, 5]
    assert (selection.is_panicking, selection.spilled_share, selection.degraded_share) == (False, 0.0, 0.0)


def test_without_endpoints_nothing_is_selected() -> None:
    assert select_endpoints([]) == select_endpoints(view(DRAINING, MAINTENANCE)) == Selection()


def test_warning_endpoints_are_unused_while_the_passing_have_capacity() -> None:
    assert ids(select_endpoints(view(PASSING, PASSING, PASSING, WARNING))) == ["i-0", "i-1", "i-2"]


def test_warning_endpoints_take_the_share_that_passing_ones_can_not_carry() -> None:
    selection = select_endpoints([*view(PASSING, prefix="ok"), *view(WARNING, prefix="worse")])
    assert share(selection, "ok") == pytest.approx(0.7)
    assert selection.degraded_share == pytest.approx(0.3)
    assert not selection.is_panicking


def test_warning_endpoints_alone_are_used_without_panic() -> None:
    selection = select_endpoints(view(WARNING, WARNING, CRITICAL))
    assert ids(selection) == ["i-0", "i-1"]
    assert selection.degraded_share == 1.0


def test_below_the_threshold_all_are_used_and_no_status_changes() -> None:
    endpoints = view(PASSING, CRITICAL, CRITICAL, DRAINING, MAINTENANCE)
    selection = select_endpoints(endpoints)
    assert selection.is_panicking
    assert [choice.endpoint for choice in selection.endpoints] == endpoints[:3]


def test_at_the_threshold_there_is_no_panic() -> None:
    assert ids(select_endpoints(view(PASSING, CRITICAL))) == ["i-0"]


def test_ejected_endpoints_count_as_unusable() -> None:
    assert ids(select_endpoints(view(PASSING, PASSING, PASSING), ejected={"i-1"})) == ["i-0", "i-2"]
    assert select_endpoints(view(PASSING, PASSING, PASSING), ejected={"i-0", "i-1"}).is_panicking


def test_a_scale_up_causes_no_panic() -> None:
    selection = select_endpoints(view(PASSING, STARTING, STARTING, STARTING))
    assert ids(selection) == ["i-0"]
    assert not selection.is_panicking


def test_a_panic_uses_starting_endpoints_only_if_there_is_nothing_else() -> None:
    assert ids(select_endpoints(view(CRITICAL, STARTING))) == ["i-0"]
    assert ids(select_endpoints(view(STARTING, STARTING, DRAINING))) == ["i-0", "i-1"]


def test_a_threshold_of_zero_never_panics() -> None:
    assert select_endpoints(view(CRITICAL, CRITICAL), SelectionOptions(panic_threshold=0.0)) == Selection()


def test_weight_zero_is_a_reserve() -> None:
    reserve = endpoint("reserve", weight=0)
    assert ids(select_endpoints([endpoint("a"), reserve])) == ["a"]
    assert ids(select_endpoints([endpoint("a", CRITICAL), reserve])) == ["reserve"]
    assert select_endpoints([endpoint("a", DRAINING), reserve]).endpoints[0].weight == 1
    assert ids(select_endpoints([endpoint("a", CRITICAL), endpoint("reserve", CRITICAL, weight=0)])) == ["a"]


OWN = SelectionOptions(zone="own")


def zones(own: list[Status], far: list[Status]) -> list[Endpoint]:
    return [*view(*own, zone="own", prefix="own"), *view(*far, zone="far", prefix="far")]


def test_calls_stay_in_the_own_zone_while_it_has_capacity() -> None:
    selection = select_endpoints(zones([PASSING] * 3 + [CRITICAL], [PASSING] * 4), OWN)
    assert share(selection, "own") == 1.0
    assert selection.spilled_share == 0.0


def test_a_zone_spills_what_it_can_not_carry() -> None:
    selection = select_endpoints(zones([PASSING, CRITICAL], [PASSING] * 4), OWN)
    assert selection.spilled_share == pytest.approx(0.3)
    assert share(selection, "far") == pytest.approx(0.3)


def test_a_dead_zone_spills_everything_and_a_far_dead_zone_nothing() -> None:
    assert select_endpoints(zones([CRITICAL] * 2, [PASSING] * 4), OWN).spilled_share == 1.0
    assert select_endpoints(zones([PASSING] * 4, [CRITICAL] * 2), OWN).spilled_share == 0.0


def test_passing_endpoints_of_other_zones_come_before_warning_ones_of_the_own_zone() -> None:
    selection = select_endpoints(zones([WARNING, WARNING], [PASSING, PASSING]), OWN)
    assert (selection.spilled_share, selection.degraded_share) == (1.0, 0.0)


def test_warning_endpoints_in_other_zones_do_not_matter_in_the_own_zone() -> None:
    selection = select_endpoints(zones([PASSING] * 3, [WARNING] * 3), OWN)
    assert (selection.spilled_share, selection.degraded_share) == (0.0, 0.0)


def test_a_panic_ignores_zones() -> None:
    selection = select_endpoints(zones([CRITICAL] * 3, [CRITICAL, PASSING]), OWN)
    assert selection.is_panicking
    assert selection.spilled_share == pytest.approx(0.4)


def test_draining_endpoints_are_no_lost_capacity() -> None:
    assert select_endpoints(zones([PASSING, DRAINING, MAINTENANCE], [PASSING] * 3), OWN).spilled_share == 0.0


def test_an_empty_own_zone_spills_everything() -> None:
    assert select_endpoints(zones([], [PASSING, PASSING]), OWN).spilled_share == 1.0


def test_slow_start_scales_an_endpoint_and_not_its_zone() -> None:
    endpoints = zones([PASSING, PASSING], [PASSING, PASSING])
    selection = select_endpoints(endpoints, OWN, slow_start_factors={"own-0": 0.1})
    assert [choice.weight for choice in selection.endpoints] == [0.1, 1.0]
    endpoints = zones([PASSING, CRITICAL], [PASSING, PASSING])
    assert select_endpoints(endpoints, OWN, slow_start_factors={"own-0": 0.1}).spilled_share == pytest.approx(0.3)


@pytest.mark.parametrize("wrong", [{"panic_threshold": 1.5}, {"panic_threshold": -0.1}, {"overprovisioning": 0.5}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        SelectionOptions(**wrong)  # type: ignore[arg-type]
