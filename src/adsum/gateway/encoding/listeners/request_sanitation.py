"""What a gateway drops from a request before any route sees it."""

from __future__ import annotations

import re
from typing import Any, Final

from envoy.config.common.mutation_rules.v3.mutation_rules_pb2 import HeaderMutation as Mutation
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from adsum.gateway.encoding import messages

FORWARDING_HEADERS: Final = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
)
"""Headers by which proxies say where a request came from. Without a trusted proxy in front, only a caller can have set
them. Envoy itself replaces x-forwarded-proto, and the routes x-forwarded-host."""
WEBSOCKET_UPGRADE: Final = "websocket"
"""The only upgrade that a gateway passes on."""


def remove_forwarding_headers() -> Any:
    """An early mutation that removes `FORWARDING_HEADERS`: conditions of routes don't see those headers either."""
    mutations = HeaderMutation(mutations=[Mutation(remove=name) for name in FORWARDING_HEADERS])
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=messages.any_message(mutations)
    )


def other_upgrades_regex() -> str:
    """A regex of every upgrade but `WEBSOCKET_UPGRADE`: an offer that a server may ignore (RFC 9110, 7.8).

    RE2 has no "not", so it lists how a text can differ: it ends early, has another character, or goes on.
    """
    known = re.escape(WEBSOCKET_UPGRADE)
    ways = [rf"{known[:n]}(?:[^{known[n]}].*)?" for n in range(len(known))]
    return f"(?i:{'|'.join(ways)}|{known}.+)"
