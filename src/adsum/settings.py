"""Declares and checks settings. A setting is a field of a dataclass in `adsum.config` or in the room of a dialect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from typing import Any, Final
from urllib.parse import urlsplit

from adsum.core.errors import Invalid
from adsum.core.validation import MAX_PORT, quoted, without_credentials

OFF: Final = "off"
ON: Final = "on"

_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(?P<port>\d{1,5})")


def setting(
    text: str,
    *,
    length: bool = False,
    size: bool = False,
    metavar: str = "",
    bare: str = "",
    prefix: str = "",
    reloads: bool = False,
    **options: Any,
) -> Any:
    """Return a dataclass field that is a setting; `text` is its help.

    `length`: the value is seconds, and may be written as 200ms, 5s, 1m30s or 2h. `size`: the value is bytes, and may be
    written as 512MiB or 2GiB. `bare`: what the flag means without a value. `prefix`: precedes the name in the
    environment, where another table has a setting of the same name. `reloads`: a registry takes a new value on SIGHUP,
    without a restart. `options` are those of `dataclasses.field`.
    """
    described = {"help": text, "length": length, "size": size, "metavar": metavar, "bare": bare, "prefix": prefix}
    return field(metadata={**described, "reloads": reloads}, **options)


def check_host_port(field: str, value: str) -> None:
    """Check for HOST:PORT, an IPv6 address in brackets. Raises `Invalid`."""
    match = _HOST_PORT.fullmatch(value)
    if match is not None and int(match["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {match['port']}")
    if match is None:
        raise Invalid(field, f"must be HOST:PORT, such as 127.0.0.1:23786 or [::1]:23786, not {quoted(value)}")


def check_url(field: str, value: str) -> None:
    """Check for http://HOST:PORT without a path. Raises `Invalid`."""
    try:
        parts = urlsplit(value)
        complete = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise Invalid(
            field, f"must be an address such as http://10.0.0.5:23786, not {quoted(without_credentials(value))}"
        )


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Check for one of `choices`. Raises `Invalid`."""
    if value not in choices:
        raise Invalid(field, f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {quoted(value)}")


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Check for a number from `low` to `high`. Raises `Invalid`."""
    if not low <= value <= high:
        raise Invalid(field, f"must be from {low:g} to {high:g}, not {value:g}")
