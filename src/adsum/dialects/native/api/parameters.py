"""The types of the path parameters, and the parameters of the query that several operations have."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from adsum import wire
from adsum.core.model import Status
from adsum.dialects.native.api.operation import QueryParameter
from adsum.wire.tokens import InviteId, TokenName

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=wire.MAX_CHANGES_PER_RESPONSE)]
WatchToken = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]

PATH_PARAMETER_TYPES: Final[dict[str, Any]] = {
    "service": wire.Name,
    "id": wire.Id,
    "watch": WatchToken,
    "route": wire.Id,
    "consumer": wire.Id,
    "token": TokenName,
    "invite": InviteId,
}

HOLDER_PARAMETER = QueryParameter(
    "holder", wire.Text, "The holder of the lease. If given, the lease must still have this holder"
)
REASON_PARAMETER = QueryParameter("reason", wire.Reason, "Why the change is made; kept in the history")
LONG_POLL_PARAMETERS = (
    QueryParameter(
        "after", Count, "The revision that the caller has: respond when there is a later one, or when `wait` is over"
    ),
    QueryParameter("wait", wire.Wait, "Seconds to wait, at most, for a change after `after` or If-None-Match"),
)
FILTER_PARAMETERS = (
    QueryParameter("status", Status, "Only instances with this status. If repeated: with any of them", repeatable=True),
    QueryParameter("tag", wire.Text, "Only instances with this tag. If repeated: with all of them", repeatable=True),
    QueryParameter("zone", wire.Text, "Only instances in this zone"),
    QueryParameter("metadata", wire.Reason, "Only instances with this metadata entry", keyed=True),
)
