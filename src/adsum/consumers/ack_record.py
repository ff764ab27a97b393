"""The acknowledgements of one consumer for one scope."""

from __future__ import annotations

from adsum.consumers.consumer import Consumer
from adsum.core.access.scopes import NO_NAMES

Scope = str | None
"""The scope of a record: a service, or all services (None)."""


class AckRecord:
    """The acknowledgements of one consumer for one scope."""

    __slots__ = (
        "acknowledged",
        "connections",
        "consumer",
        "former_visible",
        "joined_at",
        "left_at",
        "never_acknowledged_since",
        "scope",
        "unacknowledged_since",
    )

    def __init__(self, consumer: Consumer, scope: Scope, now: float) -> None:
        self.consumer = consumer
        self.scope = scope
        self.former_visible = NO_NAMES
        """The services that it could read before its rights changed: it may route to them until it acknowledges."""
        self.acknowledged = 0
        """The revision that the consumer has acknowledged."""
        self.connections = 0
        """The number of open connections."""
        self.joined_at = now
        """The instant at which the latest connection began."""
        self.left_at = 0.0
        """The last sign of life over a connection that has ended."""
        self.never_acknowledged_since: float | None = now if consumer.acks_immediately else None
        """The instant at which it connected, if it has acknowledged nothing since; None if it has, or need not do so at
        once."""
        self.unacknowledged_since: float | None = None
        """The instant at which a drain first found it behind; None if none has since its last acknowledgement."""

    def concerns(self, service: str) -> bool:
        """Returns whether drains of the service wait for this consumer. One that may not read it has no view of it."""
        if self.scope is not None:
            return self.scope == service
        return self.consumer.visible.includes(service) or self.former_visible.includes(service)
