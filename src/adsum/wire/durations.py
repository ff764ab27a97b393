"""Durations and fractions in JSON, and the conversion of a field with an error that names it."""

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
"""A fraction between 0 and 1."""


def to_seconds(field: str, duration: float | str) -> float:
    """Returns the duration in seconds. Raises `Invalid`."""
    return durations.parse_duration(duration, field) if isinstance(duration, str) else float(duration)


def optional_seconds(field: str, duration: float | str | None) -> float | None:
    """Returns the duration in seconds, None for None. Raises `Invalid`."""
    return None if duration is None else to_seconds(field, duration)


def convert_field(field: str, convert: Callable[[], T]) -> T:
    """Returns the result of `convert`. Raises its `Invalid` with `field` in front of the path."""
    try:
        return convert()
    except Invalid as error:
        raise (error.prefixed(field) if error.field else Invalid(field, error.problem)) from None
