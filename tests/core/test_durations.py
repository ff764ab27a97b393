from __future__ import annotations

import pytest

from adsum.core.durations import format_duration, parse_duration
from adsum.core.errors import Invalid


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5s", 5.0),
        ("200ms", 0.2),
        ("1m", 60.0),
        ("1m30s", 90.0),
        ("2h", 7200.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("1d", 86400),
    ],
)
def test_lengths_of_time_are_parsed(text: str, length: float) -> None:
    assert parse_duration(text) == pytest.approx(length)


@pytest.mark.parametrize("text", ["", "s", "5 s", "-1s", "5x", "1e3", "nan", "inf", "5s5", "1" * 400, "٣s"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match="200ms") as refused:
        parse_duration(text, "interval")
    assert refused.value.field == "interval"


def test_lengths_are_formatted_in_a_fitting_unit() -> None:
    assert [format_duration(length) for length in (0.0031, 0.25, 12.0, 300.0, 7200.0, 200000.0)] == [
        "3 ms",
        "250 ms",
        "12 s",
        "5 min",
        "2 h",
        "2 d",
    ]
