"""Parses checks that are written as text, in parameters and flags.

http:/health                    GET http://<address>:<port>/health, any 2xx passes
https:8443:/health              another port, with TLS
tcp   tcp:5432                  the port accepts connections
grpc   grpc:orders.v1.Orders    grpc.health.v1, of the whole server or of one gRPC service (grpcs: with TLS)
http:/health?interval=5s&timeout=1s&rise=2&fall=3&method=HEAD&expect=200-299,304&name=web
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

from msgspec.structs import replace

from adsum.core.durations import parse_duration
from adsum.core.errors import Invalid
from adsum.core.model import Check, CheckKind
from adsum.core.validation import quoted

CHECK_PREFIXES: Final = MappingProxyType(
    {
        "http": (CheckKind.HTTP, False),
        "https": (CheckKind.HTTP, True),
        "tcp": (CheckKind.TCP, False),
        "grpc": (CheckKind.GRPC, False),
        "grpcs": (CheckKind.GRPC, True),
    }
)
"""Prefix → the kind of check, and whether it uses TLS."""

_RANGE = re.compile(r"(\d{3})(?:-(\d{3}))?")


def parse_check(text: str, field: str = "check") -> Check:
    """Returns the check that `text` describes. Raises `Invalid`, with `field` or `field` and the option's name."""
    head, _, options = text.strip().partition("?")
    prefix, _, rest = head.partition(":")
    if prefix not in CHECK_PREFIXES:
        raise Invalid(
            field, f"must start with {', '.join(CHECK_PREFIXES)}, not {quoted(prefix)}; such as http:/health or tcp"
        )
    kind, tls = CHECK_PREFIXES[prefix]
    port, target = _port_and_target(rest, field)
    values: dict[str, Any] = {"name": prefix, "kind": kind, "tls": tls, "port": port}
    values.update(_target(kind, target, field))
    values.update(_options(options, field))
    try:
        return Check(**values)
    except Invalid as error:
        raise error.prefixed(field) from None


def parse_checks(texts: Iterable[str | Check], field: str = "checks") -> tuple[Check, ...]:
    """Returns several checks, parsed where they are text. Checks of one name are numbered (`http`, `http-2`).

    Raises `Invalid`.
    """
    checks: list[Check] = []
    for index, text in enumerate(texts):
        check = parse_check(text, f"{field}[{index}]") if isinstance(text, str) else text
        taken = {other.name for other in checks}
        names = (check.name if number == 1 else f"{check.name}-{number}" for number in range(1, len(taken) + 2))
        checks.append(replace(check, name=next(name for name in names if name not in taken)))
    return tuple(checks)


def _port_and_target(rest: str, field: str) -> tuple[int | None, str]:
    """Returns the port and the target of text such as `8081:/health`; the port is None if no digit comes first."""
    if not rest[:1].isdigit():
        return None, rest
    number, _, target = rest.partition(":")
    if not number.isdecimal() or not 1 <= int(number) <= 65_535:
        raise Invalid(f"{field}.port", f"must be a whole number from 1 to 65535, not {quoted(number)}")
    return int(number), target


def _target(kind: CheckKind, target: str, field: str) -> dict[str, str]:
    if not target:
        return {}
    if kind is CheckKind.TCP:
        raise Invalid(field, f"a tcp check takes a port only, as in tcp:5432, not {quoted(target)}")
    if kind is CheckKind.GRPC:
        return {"grpc_service": target}
    if not target.startswith("/"):
        raise Invalid(field, f"a path must start with /, as in http:/health, not {quoted(target)}")
    return {"path": target}


def _options(text: str, field: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(_OPTIONS)}"
            raise Invalid(field, f"{quoted(name)} is not an option of a check; {hint}")
        values[name] = _OPTIONS[name](value, f"{field}.{name}")
    return values


def _whole(text: str, field: str) -> int:
    if not (text.isdecimal() and len(text) <= 6):
        raise Invalid(field, f"must be a whole number, not {quoted(text)}")
    return int(text)


def _ranges(text: str, field: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise Invalid(field, f"must be statuses such as 200-299,304, not {quoted(text)}")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return tuple(ranges)


def _word(text: str, field: str) -> str:  # noqa: ARG001 - the model checks it
    return text


_OPTIONS: Final[MappingProxyType[str, Callable[[str, str], object]]] = MappingProxyType(
    {
        "interval": parse_duration,
        "timeout": parse_duration,
        "rise": _whole,
        "fall": _whole,
        "method": _word,
        "expect": _ranges,
        "name": _word,
    }
)
