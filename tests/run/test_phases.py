"""The state table of a wrapped program."""

from __future__ import annotations

from itertools import pairwise

import pytest

from adsum.run.phases import MOVES, ProgramEvent, ProgramPhase

ORDER = list(ProgramPhase)


def test_a_phase_never_moves_back() -> None:
    for (before, _), after in MOVES.items():
        assert ORDER.index(after) > ORDER.index(before)


@pytest.mark.parametrize("phase", [phase for phase in ProgramPhase if phase is not ProgramPhase.ENDED])
def test_a_program_may_exit_in_any_phase(phase: ProgramPhase) -> None:
    assert MOVES[phase, ProgramEvent.EXITED] is ProgramPhase.ENDED


@pytest.mark.parametrize(
    "phase", [ProgramPhase.STARTING, ProgramPhase.SERVING, ProgramPhase.DRAINING, ProgramPhase.STOPPING]
)
def test_a_signal_always_leads_to_a_later_phase(phase: ProgramPhase) -> None:
    assert (phase, ProgramEvent.SIGNALLED) in MOVES


def test_the_longest_path_drains_then_stops_then_kills() -> None:
    path = [ProgramPhase.STARTING]
    for event in (
        ProgramEvent.READY,
        ProgramEvent.SIGNALLED,
        ProgramEvent.DRAINED,
        ProgramEvent.NOT_STOPPED,
        ProgramEvent.EXITED,
    ):
        path.append(MOVES[path[-1], event])
    assert path == ORDER
    assert all(ORDER.index(a) < ORDER.index(b) for a, b in pairwise(path))
