"""The room of metrics and logs: what a running registry tells its operators."""

from adsum.telemetry.logs import Logs
from adsum.telemetry.observer import Telemetry

__all__ = ["Logs", "Telemetry"]
