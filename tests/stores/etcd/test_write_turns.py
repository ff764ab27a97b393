from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.stores.etcd.write_turns import ACTIVE_TIME, MAX_TURN, MIN_TURN, REQUESTED_TURN, WriteTurns


class Writers:
    """The turns of some nodes, after a batch of each in the order of their ids."""

    def __init__(self, *nodes: str, gap: float = 0.0) -> None:
        self.turns = WriteTurns()
        self.now = 100.0
        self.revision = 0
        for node in nodes:
            self.write(node, after=gap)

    def write(self, node: str, after: float = 0.0) -> None:
        self.now += after
        self.revision += 1
        self.turns.note_batch(node, self.revision, self.now)

    def delays(self, *nodes: str) -> list[float]:
        """Returns the delays in turns."""
        return [round(self.turns.delay(node, self.now) / self.turns.length, 6) for node in nodes]


def test_a_node_that_writes_alone_never_waits() -> None:
    writers = Writers("a", "a", "a")
    assert writers.delays("a") == [0.0]
    assert Writers().delays("a") == [0.0]


def test_nodes_that_write_take_turns_in_the_order_of_their_ids() -> None:
    writers = Writers("a", "b", "c")
    assert writers.delays("a", "b", "c") == [0.0, 1.0, 2.0]
    writers.write("a")
    assert writers.delays("a", "b", "c") == [2.0, 0.0, 1.0]


def test_a_node_that_has_not_written_yet_has_a_place_in_the_order_too() -> None:
    writers = Writers("a", "c")
    assert writers.delays("b", "d") == [1.0, 0.0]
    assert writers.delays("a", "c") == [0.0, 1.0], "nobody waits for it"


def test_the_time_since_the_latest_batch_counts() -> None:
    writers = Writers("a", "b", "c")
    writers.now += writers.turns.length
    assert writers.delays("a", "b", "c") == [-1.0 + 1.0, 0.0, 1.0]


def test_a_node_that_lets_its_turn_pass_is_not_waited_for() -> None:
    writers = Writers("a", "b", "c")
    writers.write("b", after=1.01 * writers.turns.length)
    assert writers.delays("b", "c") == [1.0, 0.0]
    writers.write("a")
    assert writers.delays("a", "b", "c") == [2.0, 0.0, 1.0], "it takes part again"


def test_a_node_that_is_overtaken_before_its_turn_is_over_is_waited_for() -> None:
    writers = Writers("a", "b", "c")
    writers.write("b", after=writers.turns.length / 2)
    assert writers.delays("a", "b", "c") == [1.0, 2.0, 0.0]


def test_a_node_that_no_longer_writes_is_not_waited_for() -> None:
    writers = Writers("a", "b")
    writers.now += ACTIVE_TIME + 0.1
    assert writers.delays("a", "b") == [0.0, 0.0]


def test_a_batch_that_is_known_changes_nothing() -> None:
    writers = Writers("a", "b")
    writers.turns.note_batch("a", 1, writers.now)  # The stream delivers it after the batch of the other node.
    assert writers.delays("a", "b") == [0.0, 1.0]


@pytest.mark.parametrize(("gap", "length"), [(0.0, MIN_TURN), (0.01, 0.02), (5.0, MAX_TURN)])
def test_a_turn_is_twice_as_long_as_a_write_usually_takes_within_bounds(gap: float, length: float) -> None:
    writers = Writers()
    for _ in range(100):
        for node in ("a", "b"):
            writers.write(node, after=gap)
    assert writers.turns.length == pytest.approx(length, rel=0.01)


def test_a_requested_turn_comes_before_all_others_until_it_is_taken() -> None:
    writers = Writers("a", "b")
    for node in ("slow", "b", "slow"):
        writers.turns.note_request(node, writers.now)
    assert writers.turns.delay("slow", writers.now) == 0.0
    assert [writers.turns.delay(node, writers.now) for node in "ab"] == [pytest.approx(REQUESTED_TURN)] * 2
    writers.write("slow")
    assert writers.turns.delay("b", writers.now) == 0.0, "its request came next"
    assert writers.turns.delay("a", writers.now) > 0.0
    writers.write("b")
    assert writers.delays("a", "b", "slow") == [1.0, 2.0, 0.0]


def test_a_requested_turn_that_is_not_taken_ends() -> None:
    writers = Writers("a")
    writers.turns.note_request("dead", writers.now)
    writers.now += REQUESTED_TURN
    assert writers.turns.delay("a", writers.now) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0.0, 0.3))), st.sampled_from("abcdef"))
def test_a_wait_is_bounded_and_at_most_one_node_has_the_turn(steps: list[tuple[str, float]], node: str) -> None:
    writers = Writers()
    for writer, after in steps:
        writers.write(writer, after)
    assert 0.0 <= max(0.0, writers.turns.delay(node, writers.now)) <= 5 * MAX_TURN
    if steps:
        known = "abcde"
        free = [other for other in known if writers.turns.delay(other, writers.now) <= 0.0]
        assert free, "somebody may write"
        latest = steps[-1][0]
        assert latest not in free or writers.turns.delay(latest, writers.now) == 0.0


@given(st.integers(2, 6), st.integers(1, 40))
def test_nodes_that_always_want_to_write_write_equally_often(count: int, rounds: int) -> None:
    nodes = "abcdef"[:count]
    writers = Writers(*nodes)
    written = dict.fromkeys(nodes, 0)
    for _ in range(rounds * count):
        free = [node for node in nodes if writers.turns.delay(node, writers.now) <= 0.0]
        assert len(free) == 1
        writers.write(free[0], after=0.001)
        written[free[0]] += 1
    assert set(written.values()) == {rounds}
