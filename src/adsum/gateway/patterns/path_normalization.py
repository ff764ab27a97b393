"""The normalization of request paths that gateways do before they compare a path with any route."""

from __future__ import annotations

import re
from typing import Final

_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED: Final = str.maketrans({char: f"%{ord(char):02X}" for char in '"<>^`{|}'})
_HEX: Final = frozenset("0123456789ABCDEFabcdef")
_TOKEN: Final = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_PARAMETERS: Final = re.compile(r"(?<=/)(\.\.?);[^/]*")
ESCAPED_NUL: Final = "%00"


def has_nul(path: str) -> bool:
    """Returns whether the path, without its query, has a zero byte anywhere. Gateways refuse such a path."""
    return ESCAPED_NUL in _without_parameters(path)


def normalize(path: str) -> str:
    """Returns the path, without its query, as Envoy's `normalize_path` leaves it.

    It decodes escapes of unreserved characters, escapes characters that a path may not have, turns backslashes into
    slashes, and resolves dot segments, also those with parameters (`..;x`). Doubled slashes stay. See RFC 3986, section
    6.2.2, and the WHATWG's URL standard.
    """
    path = _unescaped(_without_parameters(path).replace("\\", "/")).translate(_ESCAPED)
    kept: list[str] = []
    segments = path.split("/")[1:]
    for n, segment in enumerate(segments):
        if segment in (".", ".."):
            if segment == ".." and kept:
                kept.pop()
            if n == len(segments) - 1:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _without_parameters(path: str) -> str:
    """Returns the path without the parameters of its dot segments."""
    return _PARAMETERS.sub(r"\1", path)


def _unescaped(path: str) -> str:
    """Returns the path without needless escapes.

    A literal % that would begin an escape in the result is escaped.
    """
    chars = [_character(token) for token in _TOKEN.findall(path)]
    return "".join(
        "%25" if char == "%" and len(chars) > n + 2 and _HEX.issuperset(chars[n + 1 : n + 3]) else char
        for n, char in enumerate(chars)
    )


def _character(token: str) -> str:
    if len(token) == 1:
        return token
    character = chr(int(token[1:], 16))
    return character if character in _UNRESERVED else token
