"""Join lines: the one line that an operator copies to a host, so that it joins the registry.

`adsum-join://HOST:PORT[,HOST:PORT…]/ID.SECRET#HASH`: the nodes of the registry, an invite, and the hash of the public
key of the registry's authority. The joiner compares the hash with the authority that a node presents, before it sends
the secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from adsum.core.addresses import split_host_port
from adsum.core.errors import Invalid
from adsum.core.validation import MAX_PORT

SCHEME: Final = "adsum-join://"
MAX_LINE_LENGTH: Final = 4_096
"""Characters of a join line. A longer text is refused."""
MAX_NODES: Final = 16
"""Nodes that a join line names."""

_LINE: Final = re.compile(
    r"adsum-join://(?P<nodes>[^/#\s]+)/(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})#(?P<hash>[0-9a-f]{64})"
)
_NODE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class JoinLine:
    """A join line. `nodes` are HOST:PORT; `authority_hash` is SHA-256 of the authority's public key, in hex.

    Raises `Invalid` for nodes that a joiner would refuse.
    """

    nodes: Sequence[str]
    invite_id: str
    secret: str = field(repr=False)
    authority_hash: str

    def __post_init__(self) -> None:
        if not 0 < len(self.nodes) <= MAX_NODES:
            raise Invalid("line", f"must name 1 to {MAX_NODES} nodes, not {len(self.nodes)}")
        for node in self.nodes:
            if not _NODE.fullmatch(node) or not 0 < int(split_host_port(node)[1]) <= MAX_PORT:
                raise Invalid("line", "must name each node as HOST:PORT")
        if len(str(self)) > MAX_LINE_LENGTH:
            raise Invalid("line", f"must be at most {MAX_LINE_LENGTH} characters: name fewer nodes")

    def __str__(self) -> str:
        return f"{SCHEME}{','.join(self.nodes)}/{self.invite_id}.{self.secret}#{self.authority_hash}"

    @property
    def urls(self) -> list[str]:
        """The URLs of the nodes."""
        return [f"https://{node}" for node in self.nodes]


def parse_join_line(text: str) -> JoinLine:
    """Returns the join line in a text. Raises `Invalid`; its message repeats nothing of the text."""
    line = text.strip()
    match = _LINE.fullmatch(line) if len(line) <= MAX_LINE_LENGTH else None
    if match is None:
        raise Invalid("line", f"must be the whole line that `adsum token invite` printed; it begins with {SCHEME}")
    return JoinLine(tuple(match["nodes"].split(",")), match["id"], match["secret"], match["hash"])
