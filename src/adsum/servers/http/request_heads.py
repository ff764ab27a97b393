"""Heads of requests that the server recognizes without its parser, and the judgement of their header blocks.

A header block is the part of a head from the end of the request line to the blank line. A connection remembers a block
only if the parser has accepted it, and if the strict grammar here reads the same headers in it. So a remembered block
means the same to both, whatever request line precedes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_BRIEF_TARGET_BYTES: Final = 1_023
"""Bytes of a target after its first slash. The parser reads a request with a longer one."""
MAX_BRIEF_BODY_BYTES: Final = 64 * 1024
"""Bytes of a body. The parser reads a request with a larger one."""
MAX_REMEMBERED_BLOCK_BYTES: Final = 4 * 1024
"""Bytes of a header block that is remembered. The parser reads every request with a larger one."""
MAX_REMEMBERED_BLOCKS: Final = 8
"""Header blocks that a connection remembers. Past it the one that was remembered first is forgotten."""

BRIEF_METHODS: Final = (b"GET", b"PUT", b"POST", b"DELETE")
"""Methods that the parser treats alike: the headers alone say where the request ends."""

REQUEST_LINE: Final = re.compile(
    rb"(%b) (/[!$&'()*+,./0-9:;=?@A-Z_a-z~%%-]{0,%d}) HTTP/1\.1\r\n"
    % (b"|".join(BRIEF_METHODS), MAX_BRIEF_TARGET_BYTES)
)
"""A request line: method, and a target in origin form, with characters that every parser reads in the same way."""
END_OF_HEAD: Final = b"\r\n\r\n"

_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?((?:[!-~](?:[\t -~]*[!-~])?)?)\r\n")
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,6}")
_NOT_REMEMBERED: Final = frozenset(
    {
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"te",
        b"trailer",
        b"keep-alive",
        b"proxy-connection",
        b"http2-settings",
    }
)
"""Headers that change how a request is read, or what follows it."""


@dataclass(frozen=True, slots=True)
class JudgedBlock:
    """What a remembered header block says: the size of the body, and what the fast path has prepared.

    `prepared` is None if the application answers all requests with the block.
    """

    body_size: int
    prepared: object | None


def body_size(block: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """Returns the size of the body that a header block announces; None if the block must not be remembered.

    `headers` are those that the parser has read in the block, with lower-case names. `block` ends with the blank line.
    """
    if len(block) > MAX_REMEMBERED_BLOCK_BYTES or not block.endswith(END_OF_HEAD) or _fields(block) != list(headers):
        return None
    names = [name for name, _ in headers]
    if names.count(b"host") != 1 or names.count(b"content-length") > 1 or not _NOT_REMEMBERED.isdisjoint(names):
        return None
    size = 0
    for name, value in headers:
        if name == b"connection" and value.lower() != b"keep-alive":
            return None
        if name == b"content-length":
            if not _LENGTH.fullmatch(value):
                return None
            size = int(value)
    return size if size <= MAX_BRIEF_BODY_BYTES else None


def _fields(block: bytes) -> list[tuple[bytes, bytes]] | None:
    """Returns the headers of a block by the strict grammar, with lower-case names; None if it does not match."""
    fields, at, end = list[tuple[bytes, bytes]](), 0, len(block) - 2
    while at < end:
        field = _FIELD.match(block, at, end)
        if field is None:
            return None
        fields.append((field[1].lower(), field[2]))
        at = field.end()
    return fields
