"""The table of a wrapped program's life."""

from __future__ import annotations

from itertools import pairwise

import pytest

from adsum.run.phases import MOVES, Event, Phase

ORDER = list(Phase)


def test_nothing_ever_moves_back() -> None:
    for (before, _), after in MOVES.items():
        assert ORDER.index(after) > ORDER.index(before)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ENDED])
def test_a_program_may_die_at_any_time(phase: Phase) -> None:
    assert MOVES[phase, Event.DIED] is Phase.ENDED


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.SERVING, Phase.DRAINING, Phase.STOPPING])
def test_being_told_to_end_always_gets_it_closer_to_its_end(phase: Phase) -> None:
    assert (phase, Event.TOLD) in MOVES


def test_the_long_way_drains_before_it_stops_and_stops_before_it_kills() -> None:
    way = [Phase.STARTING]
    for event in (Event.ANSWERED, Event.TOLD, Event.DRAINED, Event.OVERDUE, Event.DIED):
        way.append(MOVES[way[-1], event])
    assert way == ORDER
    assert all(ORDER.index(a) < ORDER.index(b) for a, b in pairwise(way))
