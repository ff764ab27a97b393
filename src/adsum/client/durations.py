"""Lengths of time as people write them; what they mean is the core's rule."""

from adsum.core.durations import SECONDS_PER_UNIT, format_duration, parse_duration

__all__ = ["SECONDS_PER_UNIT", "format_duration", "parse_duration"]
