"""Lengths of time as people write them: 200ms, 5s, 1m30s, 2h."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import shown

UNITS: Final = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0})

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_PLAIN = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_LONGEST: Final = 32
"""Characters; a longer text is no length of time."""


def seconds(text: str, field: str = "duration") -> float:
    """The length in seconds; a number without a unit is seconds. Raises `Invalid` naming `field`."""
    value = text.strip()
    if len(value) <= _LONGEST:
        if _PLAIN.fullmatch(value):
            return float(value)
        parts = _PART.findall(value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            return sum(float(number) * UNITS[unit] for number, unit in parts)
    raise Invalid(field, f"must be a length of time such as 200ms, 5s, 1m30s or 2h, not {shown(text)}")


def spoken(length: float) -> str:
    """The length for people: `250 ms`, `12 s`, `5 min`, `3 h`, `2 d`."""
    if length < 0.9995:
        return f"{length * 1000:.0f} ms"
    for unit, name, most in ((1.0, "s", 120.0), (60.0, "min", 7_200.0), (3_600.0, "h", 172_800.0)):
        if length < most:
            return f"{length / unit:.3g} {name}"
    return f"{length / 86_400.0:.0f} d"
