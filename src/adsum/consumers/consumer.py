"""A consumer, as the registry sees it."""

from __future__ import annotations

from dataclasses import dataclass

from adsum.core.access.scopes import ALL_NAMES, NamePatterns


@dataclass(frozen=True, slots=True)
class Consumer:
    """A program that resolves services and calls instances. Its id is fixed; name and address are for people."""

    id: str
    name: str = ""
    address: str = ""
    acks_immediately: bool = False
    """True if it acknowledges its first view at once, as every consumer of the native API does."""
    visible: NamePatterns = ALL_NAMES
    """The services that it may read. If it watches all services, drains of others don't wait for it."""
    principal: str = ""
    """The principal that it proved to be; "" if it proved nothing. An operator can revoke the token of this name."""
