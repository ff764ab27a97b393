"""Who routes by what the node shows: consumers, what each has acknowledged, and whom a drain waits for."""

from adsum.consumers.ack_ledger import Duty, Pending, Standing
from adsum.consumers.ack_report import Ask, Hints, fitting, merged, report
from adsum.consumers.consumer import Consumer
from adsum.consumers.consumers import Consumers

__all__ = ["Ask", "Consumer", "Consumers", "Duty", "Hints", "Pending", "Standing", "fitting", "merged", "report"]
