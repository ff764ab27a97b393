"""Lengths of time in JSON, and errors that name the value which holds the wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from msgspec import Meta

from adsum.core import durations
from adsum.core.errors import Invalid

T = TypeVar("T")

Length = (
    Annotated[float, Meta(ge=0)]
    | Annotated[str, Meta(max_length=32, extra_json_schema={"pattern": r"^[0-9.]+((ms|s|m|h|d)[0-9.]*)*$"})]
)
"""Seconds, or a text such as 200ms, 5s and 1m30s."""


Share = Annotated[float, Meta(ge=0, le=1)]
"""A part of 1."""


def seconds(field: str, length: float | str) -> float:
    """The length in seconds. Raises `Invalid`."""
    return durations.seconds(length, field) if isinstance(length, str) else float(length)


def maybe_seconds(field: str, length: float | str | None) -> float | None:
    """The length in seconds, if there is one. Raises `Invalid`."""
    return None if length is None else seconds(field, length)


def within(field: str, make: Callable[[], T]) -> T:
    """What `make` makes of the value of `field`; what is wrong in it is told as it looks from outside."""
    try:
        return make()
    except Invalid as error:
        raise (error.under(field) if error.field else Invalid(field, error.problem)) from None
