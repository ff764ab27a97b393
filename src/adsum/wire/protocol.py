"""The words of the wire: header names, bounds, and the types that say what a value may be."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from adsum.core import model, validation

MAX_RENEWALS: Final = 10_000
"""How many leases one request renews; more are refused."""
MAX_WAIT: Final = 300.0
"""How many seconds a long poll or an acknowledged drain waits at most; longer ones are refused."""
MAX_HISTORY: Final = 1_000
"""How many recorded changes one answer holds at most."""

PROTOCOL: Final = "1.0"
"""The version of the native protocol, MAJOR.MINOR: a new major is one that clients of the one before can't follow."""
PROTOCOL_HEADER: Final = "Adsum-Protocol"
"""Says with every answer which version of the protocol it is in."""
EPOCH_HEADER: Final = "Adsum-Epoch"
REVISION_HEADER: Final = "Adsum-Revision"
AGE_HEADER: Final = "Adsum-Age"
ACTOR_HEADER: Final = "Adsum-Actor"
"""Who asks, for the record; without it the caller's address is recorded."""
FORWARDED_TO_HEADER: Final = "Adsum-Forwarded-To"
"""Says that another node passes a request on, and for which run of which node it is meant: only that one may answer."""

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
"""What they mean, for people: a pattern that people's values may fail has its line here."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="One DNS label")]
Id = Annotated[str, Meta(pattern=ID_PATTERN)]

# What only the model checks, told in the schema too, so that callers can know it before they ask.
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

Text = Annotated[str, Meta(max_length=validation.MAX_TEXT_LENGTH, extra_json_schema=TEXT_SCHEMA)]
Reason = Annotated[str, Meta(max_length=validation.MAX_VALUE_LENGTH, extra_json_schema=TEXT_SCHEMA)]
HolderClaim = Annotated[
    str, Meta(max_length=validation.MAX_TEXT_LENGTH, description="Must be the holder's name, if given")
]
Port = Annotated[int, Meta(ge=1, le=validation.MAX_PORT)]
StatusCode = Annotated[int, Meta(ge=100, le=599)]
Streak = Annotated[int, Meta(ge=1, le=model.MAX_STREAK)]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT)]
