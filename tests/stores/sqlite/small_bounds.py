"""Small bounds of the journal, so that few commits fold it and copy the log many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum.stores.sqlite import file, file_thread, fold, journal_entry, write_ahead_log

SMALL_BOUNDS: Final[tuple[tuple[object, str, float], ...]] = (
    (fold, "FOLD_FROM_FACTS", 8),
    (fold, "MAX_FOLD_FACTS", 20),
    (fold, "MAX_UNFOLDED_FACTS", 60),
    (fold, "MAX_SLICE_ROWS", 3),
    (file, "MAX_WAL_BYTES", 64 * 1024),
    (write_ahead_log, "MAX_WAL_BYTES", 64 * 1024),
    (write_ahead_log, "MAX_WAL_BYTES_UNDER_LOAD", 256 * 1024),
    (file_thread, "IDLE_SECONDS", 0.0),
    (journal_entry, "COMPRESS_FROM_BYTES", 700),
)
"""Module, constant and value."""


def use_small_bounds(set_value: Callable[[object, str, float], None] = setattr) -> None:
    """Sets the bounds, by `monkeypatch.setattr` or for the rest of this process."""
    for module, name, value in SMALL_BOUNDS:
        set_value(module, name, value)
