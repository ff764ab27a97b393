"""Consumers: the programs that route by the catalog, their acknowledgements, and the drains that wait for them."""

from adsum.consumers.ack_ledger import AckStatus, PendingConsumer
from adsum.consumers.ack_record import AckRecord
from adsum.consumers.ack_report import AckQuery, ConsumerHints, build_report, merge_reports, truncate_ids
from adsum.consumers.consumer import Consumer
from adsum.consumers.consumers import Consumers

__all__ = [
    "AckQuery",
    "AckRecord",
    "AckStatus",
    "Consumer",
    "ConsumerHints",
    "Consumers",
    "PendingConsumer",
    "build_report",
    "merge_reports",
    "truncate_ids",
]
