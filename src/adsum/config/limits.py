"""Limits and choices that the settings of several tables share."""

from __future__ import annotations

from typing import Final

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
MAX_CONNECTIONS_SETTING: Final = 1_000_000
"""The largest value that the settings `max_connections` accept; a larger one is taken for a typing error."""
MAX_TIMEOUT_SETTING: Final = 86_400.0
"""Seconds; the longest wait that a setting accepts."""
