"""Lengths of time, as people write and read them: 200ms, 5s, 1m30s, 2h."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import quoted

SECONDS_PER_UNIT: Final = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0})

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_PLAIN = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_MAX_TEXT_LENGTH: Final = 32
"""Characters of a length of time; a longer text is refused."""


def parse_duration(text: str, field: str = "duration") -> float:
    """Parses a length of time into seconds. A number without a unit is seconds. Raises `Invalid` naming `field`."""
    value = text.strip()
    if len(value) <= _MAX_TEXT_LENGTH:
        if _PLAIN.fullmatch(value):
            return float(value)
        parts = _PART.findall(value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            return sum(float(number) * SECONDS_PER_UNIT[unit] for number, unit in parts)
    raise Invalid(field, f"must be a length of time such as 200ms, 5s, 1m30s or 2h, not {quoted(text)}")


def format_duration(seconds: float) -> str:
    """Formats a length of time: `250 ms`, `12 s`, `5 min`, `3 h`, `2 d`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    for unit, name, limit in ((1.0, "s", 120.0), (60.0, "min", 7_200.0), (3_600.0, "h", 172_800.0)):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86_400.0:.0f} d"
