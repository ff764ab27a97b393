"""The division of services among nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.nodes.sharding import SHARDS, shard_of, shard_owner

nodes = st.sets(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, max_size=9)


def test_a_service_has_the_same_shard_for_ever() -> None:
    assert [shard_of(name) for name in ("orders", "users", "a")] == [238, 233, 67]


@given(nodes, st.data())
def test_only_the_shards_of_a_node_that_leaves_move(present: set[str], data: st.DataObject) -> None:
    leaver = data.draw(st.sampled_from(sorted(present)))
    for shard in range(SHARDS):
        if shard_owner(shard, present) != leaver:
            assert shard_owner(shard, present - {leaver}) == shard_owner(shard, present)
    assert shard_owner(0, ()) is None


@given(st.integers(2, 9))
def test_nodes_keep_about_equal_numbers_of_shards(count: int) -> None:
    present = [f"node-{number}" for number in range(count)]
    shares = [sum(shard_owner(shard, present) == node for shard in range(SHARDS)) for node in present]
    assert min(shares) > 0.4 * SHARDS / count
