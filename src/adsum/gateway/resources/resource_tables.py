"""Tables of resources by name. A change makes a new table that shares the unchanged resources with the old one."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import NamedTuple

from adsum.gateway.resources.resources import Resource

ResourceTable = Mapping[str, Resource]
"""The resources of a kind by name. A table never changes."""


class TableChange(NamedTuple):
    """Two tables that may differ only in the resources of these names."""

    before: ResourceTable
    after: ResourceTable
    names: Set[str]


def change_table(table: ResourceTable, removed: Set[str], added: Mapping[str, Resource]) -> TableChange:
    """Returns the change of the table when the `removed` names leave it and the `added` resources join it."""
    # `copy` of the whole table is twenty times as fast as reading it item by item.
    after = table.copy() if isinstance(table, MappingProxyType) else dict(table)
    for name in removed:
        after.pop(name, None)
    after.update(share_unchanged(added, table))
    return TableChange(table, MappingProxyType(after), removed | added.keys())


def share_unchanged(added: Mapping[str, Resource], before: ResourceTable) -> dict[str, Resource]:
    """Returns the added resources, with the bytes of the `before` resource where the content is the same."""
    return {
        name: before[name].with_revision(resource.revision)
        if name in before and before[name].version == resource.version
        else resource
        for name, resource in added.items()
    }
