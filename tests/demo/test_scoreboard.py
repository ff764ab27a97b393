"""The counts of the demo, and their display."""

from __future__ import annotations

from rich.console import Console

from adsum.client.views.view import View, ViewOrigin
from adsum.core.model import Endpoint, Instance, Status
from adsum.demo.live_display import render
from adsum.demo.runner import summary
from adsum.demo.scoreboard import Note, NoteKind, Scoreboard


def _board() -> tuple[Scoreboard, list[Note]]:
    notes: list[Note] = []
    return Scoreboard(notes.append), notes


def test_shares_are_computed_from_the_latest_answers() -> None:
    board, _ = _board()
    for _ in range(3):
        board.call_answered("orders/a", 0.1)
    board.call_answered("orders/b", 0.4)
    assert board.shares() == {"orders/a": 3, "orders/b": 1}
    assert (board.answered, board.slowest) == (4, 0.4)
    board.started_at -= 60.0
    assert board.shares() == {}


def test_retries_are_the_tries_beyond_the_requests() -> None:
    board, _ = _board()
    board.sent, board.tries = 10, 12
    assert board.retried == 2


def test_a_failure_is_noted_and_counted() -> None:
    board, notes = _board()
    board.sent = 1
    board.call_failed("no answer")
    assert [(note.kind, note.text) for note in notes] == [(NoteKind.BAD, "a request failed: no answer")]
    assert "failed: no answer" in summary(board)


def test_the_display_shows_instances_shares_and_events() -> None:
    board, _ = _board()
    endpoints = (
        Endpoint(Instance("orders", "a", "10.0.0.1", 80)),
        Endpoint(Instance("orders", "b", "10.0.0.2", 80), Status.CRITICAL),
    )
    board.views["orders"] = View("orders", endpoints, "e", 3, ViewOrigin.LIVE)
    board.call_answered("orders/a", 0.1)
    board.note(NoteKind.STEP, "calm")
    text = _text(board)
    for word in ("http://orders", "a  ", "passing", "critical", "100%", "calm", "0 failed", "registry down"):
        assert word in text


def test_counts_stay_separate_without_spaces() -> None:
    board, _ = _board()
    assert "0failed·0retries·registrydown" in "".join(_text(board).split())


def _text(board: Scoreboard) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(render(board, 40))
    return captured.get()
