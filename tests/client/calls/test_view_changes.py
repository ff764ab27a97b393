from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.client.calls.view_changes import view_changes
from adsum.core.model import Endpoint, Instance, Status
from adsum.core.selection import USABLE_STATUSES

VIEWS = st.dictionaries(
    st.integers(0, 12).map(lambda n: f"i-{n:02}"),
    st.tuples(st.sampled_from(Status), st.sampled_from(["", "one", "other"]), st.integers(1, 2)),
)


def view(instances: dict[str, tuple[Status, str, int]]) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(Instance("orders", id, "10.0.0.1", port), status, holder)
        for id, (status, holder, port) in sorted(instances.items())
    )


@given(VIEWS, VIEWS)
def test_the_changes_are_those_of_a_comparison_of_all_endpoints(
    before: dict[str, tuple[Status, str, int]], after: dict[str, tuple[Status, str, int]]
) -> None:
    old = {endpoint.id: endpoint for endpoint in view(before)}
    new = {endpoint.id: endpoint for endpoint in view(after)}
    changes = view_changes(view(before), view(after))
    replaced = {id for id in old.keys() & new.keys() if old[id].identity != new[id].identity}
    was_usable = {id for id, endpoint in old.items() if endpoint.status in USABLE_STATUSES}
    is_usable = {id for id, endpoint in new.items() if endpoint.status in USABLE_STATUSES}
    assert changes.came == new.keys() - old.keys()
    assert changes.gone == old.keys() - new.keys()
    assert changes.replaced == replaced
    assert changes.usable == is_usable - (was_usable - replaced)
    assert changes.unusable == was_usable - is_usable
    assert changes.new == [endpoint for id, endpoint in new.items() if endpoint != old.get(id)]
