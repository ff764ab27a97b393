"""The table of a wrapped program's life."""

from __future__ import annotations

from itertools import pairwise

import pytest

from adsum.run.phases import MOVES, ProgramEvent, ProgramPhase

ORDER = list(ProgramPhase)


def test_nothing_ever_moves_back() -> None:
    for (before, _), after in MOVES.items():
        assert ORDER.index(after) > ORDER.index(before)


@pytest.mark.parametrize("phase", [phase for phase in ProgramPhase if phase is not ProgramPhase.ENDED])
def test_a_program_may_die_at_any_time(phase: ProgramPhase) -> None:
    assert MOVES[phase, ProgramEvent.DIED] is ProgramPhase.ENDED


@pytest.mark.parametrize(
    "phase", [ProgramPhase.STARTING, ProgramPhase.SERVING, ProgramPhase.DRAINING, ProgramPhase.STOPPING]
)
def test_being_told_to_end_always_gets_it_closer_to_its_end(phase: ProgramPhase) -> None:
    assert (phase, ProgramEvent.TOLD) in MOVES


def test_the_long_way_drains_before_it_stops_and_stops_before_it_kills() -> None:
    way = [ProgramPhase.STARTING]
    for event in (
        ProgramEvent.ANSWERED,
        ProgramEvent.TOLD,
        ProgramEvent.DRAINED,
        ProgramEvent.OVERDUE,
        ProgramEvent.DIED,
    ):
        way.append(MOVES[way[-1], event])
    assert way == ORDER
    assert all(ORDER.index(a) < ORDER.index(b) for a, b in pairwise(way))
