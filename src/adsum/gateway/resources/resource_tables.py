"""Tables: the resources of a kind by name, each made of the one before at the cost of what moved."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import NamedTuple

from adsum.gateway.resources.resources import Resource

ResourceTable = Mapping[str, Resource]
"""The resources of a kind, by name; it never changes."""


class TableChange(NamedTuple):
    """Only resources of these names may differ between the two tables."""

    before: ResourceTable
    after: ResourceTable
    names: Set[str]


def change_table(table: ResourceTable, removed: Set[str], added: Mapping[str, Resource]) -> TableChange:
    """The table without those that `removed`, and with what was `made`."""
    # A copy of the whole: to read it item by item takes twenty times as long.
    after = table.copy() if isinstance(table, MappingProxyType) else dict(table)
    for name in removed:
        after.pop(name, None)
    after.update(share_unchanged(added, table))
    return TableChange(table, MappingProxyType(after), removed | added.keys())


def share_unchanged(added: Mapping[str, Resource], before: ResourceTable) -> dict[str, Resource]:
    """What was made, sharing the bytes of what was there before and says the same."""
    return {
        name: before[name].with_revision(resource.revision)
        if name in before and before[name].version == resource.version
        else resource
        for name, resource in added.items()
    }
