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
PASSED_ON_HEADER: Final = "Adsum-Passed-On"
"""Says that another node passes a request on, and for which run of which node it is meant: only that one may answer."""

NAME: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
SCHEME: Final = r"^[a-z][a-z0-9+.-]{0,15}$"
METHOD: Final = r"^[A-Z][A-Z-]{0,31}$"
TOKEN: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"
PARAMETER: Final = r"^[A-Za-z0-9._~\[\]-]{1,128}$"
PATTERNS: Final = {
    NAME: f"1 to {validation.NAME_LENGTH} of a-z, 0-9 and inner hyphens",
    ID: f"1 to {validation.ID_LENGTH} letters, digits and . _ : @ -, starting with a letter or digit",
    SCHEME: "a URL scheme in lower case, such as http, https or grpc",
    METHOD: "a method in upper case, such as GET",
    TOKEN: "the name of a header, such as X-User",
    PARAMETER: "the name of a parameter: letters, digits and . _ ~ [ ] -",
}
"""What they mean, for people: a pattern that people's values may fail has its line here."""

Name = Annotated[str, Meta(pattern=NAME, description="One DNS label")]
Id = Annotated[str, Meta(pattern=ID)]

# What only the model checks, told in the schema too, so that callers can know it before they ask.
LINE: Final = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"}
TAGS: Final = {
    "uniqueItems": True,
    "items": {"type": "string", "minLength": 1, "maxLength": validation.TEXT_LENGTH, **LINE},
}
PAIRS: Final = {
    "propertyNames": {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"},
    "additionalProperties": {"type": "string", "maxLength": validation.VALUE_LENGTH, **LINE},
}
HEADERS: Final = {
    "propertyNames": {
        "pattern": TOKEN,
        "not": {"pattern": "^([Cc]ontent-[Ll]ength|[Tt]ransfer-[Ee]ncoding|[Cc]onnection|[Uu]pgrade)$"},
    },
    "additionalProperties": {"type": "string", "maxLength": validation.VALUE_LENGTH, "pattern": "^[ -~]*$"},
}

Text = Annotated[str, Meta(max_length=validation.TEXT_LENGTH, extra_json_schema=LINE)]
Reason = Annotated[str, Meta(max_length=validation.VALUE_LENGTH, extra_json_schema=LINE)]
Claim = Annotated[str, Meta(max_length=validation.TEXT_LENGTH, description="Must be the holder's name, if given")]
Port = Annotated[int, Meta(ge=1, le=validation.MAX_PORT)]
Code = Annotated[int, Meta(ge=100, le=599)]
Streak = Annotated[int, Meta(ge=1, le=model.MAX_STREAK)]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT)]
