"""The validators behind the model's constructors, and texts made safe for errors and logs.

A validator returns nothing. It raises `Invalid`, which names the field and says which values are valid.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from adsum.core.addresses import IPV4_OCTET_PATTERN, MAX_CACHED_ADDRESSES
from adsum.core.errors import Invalid

MAX_SERVICE_NAME_LENGTH: Final = 63
"""Characters of a service's name. It is one DNS label (RFC 1123), so that it is a host name in every dialect."""
MAX_ID_LENGTH: Final = 128
MAX_NODE_ID_LENGTH: Final = 320
"""Characters of the id of a gateway or another xDS client: a host name, and a part that distinguishes the clients on
one host."""
MAX_ADDRESS_LENGTH: Final = 253
MAX_TEXT_LENGTH: Final = 128
"""Characters of a tag, a metadata key, an author or a holder."""
MAX_VALUE_LENGTH: Final = 1024
"""Characters of a metadata value, a reason or a check's path."""
MAX_PORT: Final = 65_535
MAX_CACHED_NAMES: Final = 4_096
"""Valid names of services, and valid schemes, that are cached. Past it those used longest ago are checked again."""

NAME_PATTERN: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME_RULE: Final = f"1 to {MAX_SERVICE_NAME_LENGTH} of a-z, 0-9 and inner hyphens"
"""A description of `NAME_PATTERN` for errors."""
ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}"
ID_RULE: Final = f"1 to {MAX_ID_LENGTH} letters, digits and . _ : @ -, starting with a letter or digit"
"""A description of `ID_PATTERN` for errors."""
SCHEME_PATTERN: Final = r"[a-z][a-z0-9+.-]{0,15}"
SCHEME_RULE: Final = "a URL scheme in lower case, such as http, https or grpc"
"""A description of `SCHEME_PATTERN` for errors."""
KEY_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"
"""A key of metadata."""
HEADER_NAME_PATTERN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}"
"""The name of an HTTP header: a token of RFC 9110."""

_NAME = re.compile(NAME_PATTERN)
_ID = re.compile(ID_PATTERN)
_UNICAST_OCTET = r"(?:22[0-3]|2[01][0-9]|1[0-9][0-9]|[1-9][0-9]?)"
_UNICAST_IPV4 = re.compile(rf"{_UNICAST_OCTET}(?:\.{IPV4_OCTET_PATTERN}){{3}}")
"""IPv4 addresses below multicast (224/4) and reserved ones (240/4), without 0/8."""
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_SCHEME = re.compile(SCHEME_PATTERN)
_KEY = re.compile(KEY_PATTERN)
_HEADER_NAME = re.compile(HEADER_NAME_PATTERN)
_LOGIN = re.compile(r"//[^?]*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@lru_cache(MAX_CACHED_NAMES)
def service_name(field: str, value: str) -> None:
    """Requires one DNS label: 1 to 63 of a-z, 0-9 and inner hyphens."""
    if not _NAME.fullmatch(value):
        raise Invalid(field, f"must be {NAME_RULE}, not {quoted(value)}")


def instance_id(field: str, value: str) -> None:
    """Requires 1 to 128 letters, digits and . _ : @ - , starting with a letter or digit."""
    if not _ID.fullmatch(value):
        raise Invalid(field, f"must be {ID_RULE}")


def node_id(field: str, value: str) -> None:
    """Requires the id of an xDS client: 1 to 320 printable characters on one line."""
    if not (0 < len(value) <= MAX_NODE_ID_LENGTH and value.isprintable()):
        raise Invalid(field, f"must be 1 to {MAX_NODE_ID_LENGTH} printable characters on one line, not {quoted(value)}")


def address(field: str, value: str) -> None:
    """Requires an IPv4 or IPv6 address without brackets or zone, or a host name.

    Refuses unspecified and multicast addresses, which no client can connect to.
    """
    if _UNICAST_IPV4.fullmatch(value):
        return  # The usual case, without the slow parser of the library.
    problem = _address_problem(value)
    if problem is not None:
        raise Invalid(field, problem)


@lru_cache(
    maxsize=MAX_CACHED_ADDRESSES
)  # Thousands of instances share a host, and parsing an address is the slowest validation.
def _address_problem(value: str) -> str | None:
    try:
        ip = ipaddress.ip_address(value)
    except ValueError:
        numeric = value.replace(".", "").isdigit()
        if len(value) > MAX_ADDRESS_LENGTH or numeric or not _HOST.fullmatch(value):
            return f"must be an IP address or a host name, not {quoted(value)}"
        return None
    if ip.is_unspecified or ip.is_multicast or getattr(ip, "scope_id", None):
        return f"must be an address that callers can reach, not {value}"
    return None


@lru_cache(MAX_CACHED_NAMES)
def scheme(field: str, value: str) -> None:
    """Requires a URL scheme in lower case, at most 16 characters."""
    if not _SCHEME.fullmatch(value):
        raise Invalid(field, f"must be {SCHEME_RULE}")


def whole_number(field: str, value: int, low: int, high: int) -> None:
    """Requires a whole number from `low` to `high`."""
    if not low <= value <= high:
        raise Invalid(field, f"must be a whole number from {low} to {high}, not {value}")


def seconds(field: str, value: float, low: float, high: float) -> None:
    """Requires a finite length of time from `low` to `high` seconds."""
    if not (math.isfinite(value) and low <= value <= high):
        raise Invalid(field, f"must be from {low:g} to {high:g} seconds, not {value:g}")


def text(field: str, value: str, max_length: int = MAX_TEXT_LENGTH, *, empty: bool = True) -> None:
    """Requires printable text of at most `max_length` characters on one line."""
    if len(value) > max_length:
        raise Invalid(field, f"must be at most {max_length} characters, not {len(value)}")
    if not value and not empty:
        raise Invalid(field, "must not be empty")
    # `isprintable` takes a quarter of the time of the search, and printable texts hold no control characters.
    if not value.isprintable() and _CONTROL.search(value):
        raise Invalid(field, "must be one line of text without control characters")


def texts(field: str, values: Sequence[str], max_count: int) -> None:
    """Requires at most `max_count` different texts, none of them empty."""
    if len(values) > max_count:
        raise Invalid(field, f"must be at most {max_count}, not {len(values)}")
    if len(set(values)) != len(values):
        raise Invalid(field, "must not repeat")
    for position, value in enumerate(values):
        text(f"{field}[{position}]", value, empty=False)


def mapping(field: str, values: Mapping[str, str], max_count: int) -> None:
    """Requires at most `max_count` pairs: keys of letters, digits and . _ / -, values of one line."""
    if len(values) > max_count:
        raise Invalid(field, f"must be at most {max_count} pairs, not {len(values)}")
    for key, value in values.items():
        if not _KEY.fullmatch(key):
            raise Invalid(
                f"{field}.{quoted(key)}",
                f"a key must be 1 to {MAX_TEXT_LENGTH} letters, digits and . _ / -, starting with a letter or digit",
            )
        text(f"{field}.{key}", value, MAX_VALUE_LENGTH)


def headers(field: str, values: Mapping[str, str], max_count: int) -> None:
    """Requires at most `max_count` HTTP headers: names are tokens (RFC 9110), values one line of ASCII."""
    if len(values) > max_count:
        raise Invalid(field, f"must be at most {max_count} headers, not {len(values)}")
    for name, value in values.items():
        if not _HEADER_NAME.fullmatch(name):
            raise Invalid(f"{field}.{quoted(name)}", "a header's name must be a token, such as X-Check")
        if name.lower() in ("content-length", "transfer-encoding", "connection", "upgrade"):
            raise Invalid(f"{field}.{name}", "is set by the probe itself")
        text(f"{field}.{name}", value, MAX_VALUE_LENGTH)
        if not value.isascii():
            raise Invalid(f"{field}.{name}", "must be ASCII")


def without_credentials(url: str) -> str:
    """Returns the URL without user and password, for people and logs."""
    return _LOGIN.sub("//", url)


def escape_unprintable(text: str) -> str:
    r"""Returns the text with every unprintable character escaped, as in `\x1b` or `\u202e`.

    It is applied where a text goes to a terminal or a log. Texts of clients may hold characters that move the cursor,
    hide or reorder other characters, or end a line.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def quoted(value: str) -> str:
    """Returns the value as an error quotes it: escaped, and cut after 40 characters, so that it can't flood a log."""
    return ascii(value if len(value) <= 40 else value[:40] + "…")
