"""A consumer, as the registry knows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Consumer:
    """A program that resolves and routes. It keeps its id for its whole life; name and address are for people."""

    id: str
    name: str = ""
    address: str = ""
    acks_immediately: bool = False
    """Whether it acknowledges the first that it is shown at once, as every consumer over the native API does."""
