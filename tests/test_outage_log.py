"""The log of an outage."""

from __future__ import annotations

import logging

import pytest

from adsum.outage_log import OutageLog


def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = OutageLog(logging.getLogger("test"), "it fails: %s", "it works again after %d tries")
    outage.recovered(0)
    states = []
    for problem in ("first", "second"):
        outage.failed(problem)
        states.append(outage.is_failing)
    for _ in range(2):
        outage.recovered(3)
        states.append(outage.is_failing)
    assert states == [True, True, False, False]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "it fails: first"),
        ("WARNING", "it works again after 3 tries"),
    ]
