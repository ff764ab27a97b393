"""The declaration of a setting, and the validation of its value.

A table of the configuration file is a frozen dataclass that is validated when it is made. Each of its fields defines a
setting completely. The name of the field is the key in the file, `ADSUM_NAME` in the environment and `--name` on the
command line. Its type decides how texts are parsed. Its metadata is what `--help` shows. Constructors raise `Invalid`
naming the field.
"""

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
    duration: bool = False,
    size: bool = False,
    metavar: str = "",
    bare: str = "",
    prefix: str = "",
    reloads: bool = False,
    **options: Any,
) -> Any:
    """Returns a dataclass field with the help text of its setting.

    `duration`: the value is in seconds and may be written as 200ms, 5s, 1m30s or 2h. `size`: the value is in bytes and
    may be written as 512MiB or 2GiB. `bare`: the value of the flag when it is given without one. `prefix`: goes before
    the name of the environment variable, where another table has a setting of the same name. `reloads`: a registry
    applies a new value on SIGHUP, without a restart.
    """
    described = {"help": text, "duration": duration, "size": size, "metavar": metavar, "bare": bare, "prefix": prefix}
    return field(metadata={**described, "reloads": reloads}, **options)


def check_host_port(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is HOST:PORT; an IPv6 address stands in brackets."""
    match = _HOST_PORT.fullmatch(value)
    if match is not None and int(match["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {match['port']}")
    if match is None:
        raise Invalid(field, f"must be HOST:PORT, such as 127.0.0.1:23786 or [::1]:23786, not {quoted(value)}")


def check_url(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is an http:// or https:// URL without a path."""
    try:
        parts = urlsplit(value)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise Invalid(
            field,
            "must be an address such as https://10.0.0.5:23786 or http://127.0.0.1:23786, not "
            f"{quoted(without_credentials(value))}",
        )


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Raises `Invalid` unless the value is one of `choices`."""
    if value not in choices:
        raise Invalid(field, f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {quoted(value)}")


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Raises `Invalid` unless the value is from `low` to `high`."""
    if not low <= value <= high:
        raise Invalid(field, f"must be from {low:g} to {high:g}, not {value:g}")
