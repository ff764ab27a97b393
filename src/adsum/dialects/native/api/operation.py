"""An operation of the API, as the table of operations describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct

from adsum import wire
from adsum.core.access.actions import ACCESS_RULES, Action, Subject

BASE: Final = "/api/v1"
MAX_BODY_BYTES: Final = 64 * 1024
"""Bytes of a request body. A larger one is refused with 413."""
EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A parameter of the query.

    A `repeatable` one may be given any number of times. A `keyed` one is written `name[key]=value`, once per key.
    """

    name: str
    type: Any
    description: str
    repeatable: bool = False
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """An operation of the API.

    `action` is what the gate decides on, for the services that the path and the query name. `responses` maps each
    success status to the type of its body: a struct, a media type, or None for no body. `problems` lists the error
    statuses.
    """

    name: str
    method: str
    path: str
    action: Action
    summary: str
    responses: dict[int, type[Struct] | str | None]
    problems: tuple[int, ...] = ()
    query: tuple[QueryParameter, ...] = ()
    body: type[wire.RequestBody] | None = None
    max_body: int = MAX_BODY_BYTES
    description: str = ""
    needs_no_catalog: bool = False
    """True if the operation is served before the catalog is loaded."""
    is_forwardable: bool = False
    """True if another node may forward it for a caller whose rights it has checked. Then it needs `Action.FORWARD`."""

    @property
    def is_public(self) -> bool:
        """Returns whether everybody may do it, so that credentials are not looked at: they may be outdated."""
        return ACCESS_RULES[self.action].subject is Subject.NOTHING and self.action is not Action.IDENTIFY

    @property
    def is_endless(self) -> bool:
        """Returns whether the response never ends. Such an operation has no HEAD."""
        return EVENT_STREAM in self.responses.values()
