"""The sanitation of requests: headers and upgrades that a gateway drops before it matches routes."""

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
"""Headers by which proxies describe the origin of a request. Without a trusted proxy in front, only the caller can have
set them. Envoy itself replaces x-forwarded-proto, and the route configuration replaces x-forwarded-host."""
WEBSOCKET_UPGRADE: Final = "websocket"
"""The only upgrade that a gateway forwards."""


def remove_forwarding_headers() -> Any:
    """Returns an early header mutation that removes `FORWARDING_HEADERS`, so that routes do not see them either."""
    mutations = HeaderMutation(mutations=[Mutation(remove=name) for name in FORWARDING_HEADERS])
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=messages.any_message(mutations)
    )


def other_upgrades_regex() -> str:
    """Returns a regex of every upgrade but `WEBSOCKET_UPGRADE`. A server may ignore upgrades (RFC 9110, section 7.8).

    RE2 has no negation, so the regex lists how a text can differ: it ends early, has another character, or is longer.
    """
    name = re.escape(WEBSOCKET_UPGRADE)
    differences = [rf"{name[:n]}(?:[^{name[n]}].*)?" for n in range(len(name))]
    return f"(?i:{'|'.join(differences)}|{name}.+)"
