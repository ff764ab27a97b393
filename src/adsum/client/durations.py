"""Lengths of time as people write them; what they mean is the core's rule."""

from adsum.core.durations import UNITS, seconds, spoken

__all__ = ["UNITS", "seconds", "spoken"]
