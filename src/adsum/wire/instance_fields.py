"""The fields that an instance declares, as both `RegistrationBody` and `InstanceView` have them.

A new field of `core.model.Instance` needs a field of the same name in both bodies, in `InstanceView` at the same place
among the declared fields, and nothing here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from operator import attrgetter
from sys import intern
from typing import Any, Final

from msgspec import Struct

from adsum.core.model import Instance
from adsum.wire.interning import intern_pairs, intern_texts

DECLARED_FIELDS: Final = tuple(
    field.name for field in dataclasses.fields(Instance) if field.name not in ("service", "id")
)
"""The names of these fields. Service and id are not among them: the path or the surrounding body has them."""

_SHARED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "scheme": intern,
    "zone": intern,
    "tags": intern_texts,
    "metadata": intern_pairs,
}
"""The functions that share equal values of many instances, by field."""

_values = attrgetter(*DECLARED_FIELDS)
_sharers = tuple((number, _SHARED[name]) for number, name in enumerate(DECLARED_FIELDS) if name in _SHARED)
_ADDRESS: Final = DECLARED_FIELDS.index("address")
_METADATA: Final = DECLARED_FIELDS.index("metadata")


def declared_values(instance: Instance) -> list[Any]:
    """Returns the values of the declared fields of an instance, in the order of `DECLARED_FIELDS`, for a body."""
    values = list(_values(instance))
    values[_METADATA] = dict(values[_METADATA])
    return values


def fields_of(instance: Instance) -> dict[str, Any]:
    """Returns the declared fields of an instance, as keyword arguments for a body."""
    return dict(zip(DECLARED_FIELDS, declared_values(instance), strict=True))


def to_instance(service: str, id: str, body: Struct, *, address: str | None = None) -> Instance:
    """Returns the instance with the fields of a body. `address` replaces that of the body. Raises `Invalid`."""
    values = list(_values(body))
    for number, share in _sharers:
        values[number] = share(values[number])
    if address is not None:
        values[_ADDRESS] = address
    return Instance(service, id, *values)
