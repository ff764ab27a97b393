"""Lengths of time in JSON, and errors that name the value which holds the wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from msgspec import Meta

from adsum.core import durations
from adsum.core.errors import Invalid

T = TypeVar("T")

Duration = (
    Annotated[float, Meta(ge=0)]
    | Annotated[str, Meta(max_length=32, extra_json_schema={"pattern": r"^[0-9.]+((ms|s|m|h|d)[0-9.]*)*$"})]
)
"""Seconds, or a text such as 200ms, 5s and 1m30s."""


Fraction = Annotated[float, Meta(ge=0, le=1)]
"""A part of 1."""


def to_seconds(field: str, duration: float | str) -> float:
    """The length in seconds. Raises `Invalid`."""
    return durations.parse_duration(duration, field) if isinstance(duration, str) else float(duration)


def optional_seconds(field: str, duration: float | str | None) -> float | None:
    """The length in seconds, if there is one. Raises `Invalid`."""
    return None if duration is None else to_seconds(field, duration)


def convert_field(field: str, convert: Callable[[], T]) -> T:
    """What `convert` makes of the value of `field`; what is wrong in it is told as it looks from outside."""
    try:
        return convert()
    except Invalid as error:
        raise (error.prefixed(field) if error.field else Invalid(field, error.problem)) from None
