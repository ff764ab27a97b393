"""Metrics and logs of a running registry."""

from adsum.telemetry.logs import Logs
from adsum.telemetry.observer import Telemetry

__all__ = ["Logs", "Telemetry"]
