"""Tables: the resources of a kind by name, each made of the one before at the cost of what moved."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import NamedTuple

from adsum.gateway.resources.resources import Resource

Table = Mapping[str, Resource]
"""The resources of a kind, by name; it never changes."""


class Move(NamedTuple):
    """Only resources of these names may differ between the two tables."""

    before: Table
    after: Table
    names: Set[str]


def moved(table: Table, left: Set[str], made: Mapping[str, Resource]) -> Move:
    """The table without those that `left`, and with what was `made`."""
    # A copy of the whole: to read it item by item takes twenty times as long.
    after = table.copy() if isinstance(table, MappingProxyType) else dict(table)
    for name in left:
        after.pop(name, None)
    after.update(settled(made, table))
    return Move(table, MappingProxyType(after), left | made.keys())


def settled(made: Mapping[str, Resource], before: Table) -> dict[str, Resource]:
    """What was made, sharing the bytes of what was there before and says the same."""
    return {
        name: before[name].at(resource.revision)
        if name in before and before[name].version == resource.version
        else resource
        for name, resource in made.items()
    }
