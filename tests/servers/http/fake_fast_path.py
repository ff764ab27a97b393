"""A fast path for tests of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from adsum.mounts import Reply

OK = b"via: fast\r\ncontent-length: 5\r\n\r\nhello"
"""The rest of a response with the status 200, which the header Via tells from others."""


class BriefRequest(NamedTuple):
    """A request that the fast path got."""

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    certificate: bytes
    body: bytes
    peer: str


@dataclass
class FakeFastPath:
    """Answers `/now` at once, and `/later` when the test does. The application answers everything else."""

    requests: list[BriefRequest] = field(default_factory=list)
    waiting: list[Reply] = field(default_factory=list)
    """The replies to requests for `/later`."""
    prepared: int = 0

    def prepare(self, headers: Sequence[tuple[bytes, bytes]], certificate: bytes) -> object | None:
        self.prepared += 1
        return None if (b"x-slow", b"1") in headers else (tuple(headers), certificate)

    def answer(self, method: bytes, target: bytes, prepared: object, body: bytes, peer: str, reply: Reply) -> bool:
        headers, certificate = cast("tuple[Sequence[tuple[bytes, bytes]], bytes]", prepared)
        if target not in (b"/now", b"/later", b"/broken"):
            return False
        self.requests.append(BriefRequest(method, target, headers, certificate, body, peer))
        if target == b"/broken":
            raise RuntimeError("a bug")
        if target == b"/now":
            reply(200, OK)
        else:
            self.waiting.append(reply)
        return True
