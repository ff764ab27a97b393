"""How gateways read the path of a request before they compare it with any route."""

from __future__ import annotations

import re
from typing import Final

_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED: Final = str.maketrans({each: f"%{ord(each):02X}" for each in '"<>^`{|}'})
_HEX: Final = frozenset("0123456789ABCDEFabcdef")
_TOKEN: Final = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_PARAMETERS: Final = re.compile(r"(?<=/)(\.\.?);[^/]*")
ESCAPED_NUL: Final = "%00"


def has_nul(path: str) -> bool:
    """Whether the path, without its query, has a zero byte, which gateways refuse wherever it stands."""
    return ESCAPED_NUL in _without_parameters(path)


def normalize(path: str) -> str:
    """The path, without its query, as Envoy's `normalize_path` leaves it (RFC 3986, section 6.2.2; the WHATWG's URLs).

    Escapes of unreserved characters are undone, characters that a path may not have are escaped, backslashes are
    turned, and dot segments resolved, also those with parameters (`..;x`); doubled slashes stay.
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
    """Without the parameters of dot segments."""
    return _PARAMETERS.sub(r"\1", path)


def _unescaped(path: str) -> str:
    """Without needless escapes. A % that is none of an escape is escaped if it would begin one afterwards."""
    read = [_character(token) for token in _TOKEN.findall(path)]
    return "".join(
        "%25" if each == "%" and len(read) > n + 2 and _HEX.issuperset(read[n + 1 : n + 3]) else each
        for n, each in enumerate(read)
    )


def _character(token: str) -> str:
    if len(token) == 1:
        return token
    character = chr(int(token[1:], 16))
    return character if character in _UNRESERVED else token
