"""The names of the tokens that belong to a node. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from adsum.core.access.tokens import ADMIN_PREFIX, GATEWAY_PREFIX, NODE_PREFIX

MAX_NAME_LENGTH: Final = 63
"""Characters of a token's name. The name of a node that is too long is cut, and a part of its hash is added."""
HASH_LENGTH: Final = 8
"""Hex digits of the hash that distinguishes nodes whose names differ only in what the name of a token can't have."""

_INVALID: Final = re.compile(r"[^A-Za-z0-9._-]+")


def admin_token_name(node: str) -> str:
    """Returns the name of the admin token of a node."""
    return _name(ADMIN_PREFIX, node)


def gateway_token_name(node: str) -> str:
    """Returns the name of the token of the gateway in the process of a node."""
    return _name(GATEWAY_PREFIX, node)


def node_token_name(node: str) -> str:
    """Returns the name of the token that the certificate of an issuing node names."""
    return _name(NODE_PREFIX, node)


def _name(prefix: str, node: str) -> str:
    valid = _INVALID.sub("-", node)
    if valid == node and node and len(prefix + node) <= MAX_NAME_LENGTH:
        return prefix + node
    suffix = "-" + hashlib.sha256(node.encode(errors="surrogatepass")).hexdigest()[:HASH_LENGTH]
    return prefix + valid[: MAX_NAME_LENGTH - len(prefix) - len(suffix)] + suffix
