"""The protocol: headers, bounds, and the types of fields."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from adsum.core import model, validation

MAX_RENEWALS: Final = 10_000
"""Leases that one request renews. More are refused."""
MAX_REGISTRATIONS: Final = 1_000
"""Registrations in one request. More are refused."""
MAX_WATCH_UPDATE: Final = 128
"""Services that one request lets join a watch, and as many that leave it. More are refused."""
MAX_SERVICES_PER_WATCH: Final = 512
"""Services that one watch names. More are refused: a client that needs them opens another watch, or watches all."""
MAX_WAIT: Final = 300.0
"""Seconds that a long poll or a drain waits, at most. A longer wait is refused."""
MAX_CHANGES_PER_RESPONSE: Final = 1_000
"""Recorded changes in one response, at most."""

PROTOCOL: Final = "1.0"
"""The version of the native protocol, MAJOR.MINOR. Clients of an earlier major version can't use a later one."""
PROTOCOL_HEADER: Final = "Adsum-Protocol"
"""The version of the protocol, in every response."""
EPOCH_HEADER: Final = "Adsum-Epoch"
REVISION_HEADER: Final = "Adsum-Revision"
AGE_HEADER: Final = "Adsum-Age"
ACTOR_HEADER: Final = "Adsum-Actor"
"""The actor of a change. Without it the address of the caller is recorded."""
FORWARDED_TO_HEADER: Final = "Adsum-Forwarded-To"
"""In a request that another node forwards: the id of the target node.

Only the run of the node with this id serves it.
"""
FORWARDED_BY_HEADER: Final = "Adsum-Forwarded-By"
"""In a request about joining or a certificate that another node forwards: the name of that node.

It is not forwarded again.
"""
FORWARDED_FOR_HEADER: Final = "Adsum-Forwarded-For"
"""In such a request: the address that it came from. It counts only if a node of this registry has sent it."""

NAME_PATTERN: Final = f"^{validation.NAME_PATTERN}$"
ID_PATTERN: Final = f"^{validation.ID_PATTERN}$"
SCHEME_PATTERN: Final = f"^{validation.SCHEME_PATTERN}$"
METHOD_PATTERN: Final = r"^[A-Z][A-Z-]{0,31}$"
HEADER_NAME_PATTERN: Final = f"^{validation.HEADER_NAME_PATTERN}$"
PARAMETER_NAME_PATTERN: Final = r"^[A-Za-z0-9._~\[\]-]{1,128}$"
PATTERN_DESCRIPTIONS: Final = {
    NAME_PATTERN: validation.NAME_RULE,
    ID_PATTERN: validation.ID_RULE,
    SCHEME_PATTERN: validation.SCHEME_RULE,
    METHOD_PATTERN: "a method in upper case, such as GET",
    HEADER_NAME_PATTERN: "the name of a header, such as X-User",
    PARAMETER_NAME_PATTERN: "the name of a parameter: letters, digits and . _ ~ [ ] -",
}
"""Descriptions of the patterns, for errors."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="One DNS label")]
Id = Annotated[str, Meta(pattern=ID_PATTERN)]

# Rules that the model checks. The schema states them as well, so that callers know them.
TEXT_SCHEMA: Final = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"}
TAGS_SCHEMA: Final = {
    "uniqueItems": True,
    "items": {"type": "string", "minLength": 1, "maxLength": validation.MAX_TEXT_LENGTH, **TEXT_SCHEMA},
}
METADATA_SCHEMA: Final = {
    "propertyNames": {"pattern": f"^{validation.KEY_PATTERN}$"},
    "additionalProperties": {"type": "string", "maxLength": validation.MAX_VALUE_LENGTH, **TEXT_SCHEMA},
}
HEADERS_SCHEMA: Final = {
    "propertyNames": {
        "pattern": HEADER_NAME_PATTERN,
        "not": {"pattern": "^([Cc]ontent-[Ll]ength|[Tt]ransfer-[Ee]ncoding|[Cc]onnection|[Uu]pgrade)$"},
    },
    "additionalProperties": {"type": "string", "maxLength": validation.MAX_VALUE_LENGTH, "pattern": "^[ -~]*$"},
}

PositionText = Annotated[str, Meta(pattern=r"^[^:\s]+:[0-9]{1,19}$")]
"""EPOCH:REVISION, the id of a `synced` event."""

Text = Annotated[str, Meta(max_length=validation.MAX_TEXT_LENGTH, extra_json_schema=TEXT_SCHEMA)]
Reason = Annotated[str, Meta(max_length=validation.MAX_VALUE_LENGTH, extra_json_schema=TEXT_SCHEMA)]
HolderClaim = Annotated[
    str,
    Meta(
        max_length=validation.MAX_TEXT_LENGTH,
        description="The holder of the lease. If given, the lease must still have this holder",
    ),
]
Port = Annotated[int, Meta(ge=1, le=validation.MAX_PORT)]
StatusCode = Annotated[int, Meta(ge=100, le=599)]
Streak = Annotated[int, Meta(ge=1, le=model.MAX_STREAK)]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT)]
