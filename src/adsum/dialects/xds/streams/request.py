"""Requests: what clients say, in one form for both variants, with a bound on all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from adsum.core import validation
from adsum.core.catalog.decisions import MAX_SERVICES
from adsum.core.validation import quoted
from adsum.dialects.xds.streams.errors import invalid_argument
from adsum.gateway.intent.intent import MAX_SELECTORS
from adsum.gateway.profile import HEALTH_PROBE_AGENT
from adsum.gateway.resources.resources import ResourceKind

MAX_GATEWAY_NAMES: Final = 2 * (MAX_SERVICES + MAX_SELECTORS)
"""Names in one subscription or in the initial versions of a client; a stream with more is ended.

As many as the clusters that a gateway may get: each service, and each selection of its instances by a route, may have a
cluster for each version of HTTP.
"""
MAX_NAME_LENGTH: Final = 512
"""Characters of a name, a version and a nonce; a stream with a longer one is ended."""
MAX_NODE_LENGTH: Final = validation.MAX_NODE_ID_LENGTH
"""Characters of a node's id and of the name and version of its program; a stream with longer ones is ended."""
MAX_REJECTION_LENGTH: Final = 1_024
"""Characters that are kept of a client's reason for a rejection; the rest is cut off."""
MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a request; a stream that sends a longer one is ended. A gateway that reconnects with `MAX_GATEWAY_NAMES`
assignments sends each name twice, and its version."""

KINDS_BY_TYPE_URL: Final[Mapping[str, ResourceKind]] = MappingProxyType({kind.value: kind for kind in ResourceKind})
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClientNode:
    """Who asks, as it says itself: its id, which program it is, its version and its metadata."""

    id: str
    agent: str
    version: str
    metadata: Mapping[str, object]

    @property
    def is_envoy(self) -> bool:
        return self.agent == "envoy"

    @property
    def is_observer(self) -> bool:
        """Whether it only asks if somebody answers: no drain waits for it."""
        return self.agent == HEALTH_PROBE_AGENT


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """One request.

    `names` are those subscribed to: all of them in state-of-the-world, further ones in delta. `nonce` is that of the
    response it answers, "" for none; `error` says why that one was rejected. `brought` says what the client already
    has, by version; in state-of-the-world all that is known is whether it has anything (`is_returning`).
    """

    kind: ResourceKind
    names: Sequence[str]
    unsubscribed: Sequence[str]
    nonce: str
    error: str
    initial_versions: Mapping[str, str]
    is_returning: bool


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it came; what it says of its node, which may be long and is said again and again, is read if asked.

    `asked` is None for a kind that nobody knows here.
    """

    body: ResourceRequest | None
    message: Any

    def node(self) -> ClientNode | None:
        """Who asks, where that is said. Raises `Refused`."""
        return _node(self.message)


def parse_delta(request: bytes) -> ReceivedRequest:
    """Read a request of the delta variant. Raises `Refused`."""
    said = _parsed(DeltaDiscoveryRequest, request)
    kind = KINDS_BY_TYPE_URL.get(said.type_url)
    if kind is None:
        return ReceivedRequest(None, said)
    names, dropped = _names(said.resource_names_subscribe), _names(said.resource_names_unsubscribe)
    brought = dict(said.initial_resource_versions) if said.initial_resource_versions else _NOTHING
    if brought:
        _names(brought)
        _names(brought.values())
    return ReceivedRequest(
        ResourceRequest(kind, names, dropped, _nonce(said), _error(said), brought, bool(brought)), said
    )


def parse_sotw(request: bytes) -> ReceivedRequest:
    """Read a request for the state of the world. Raises `Refused`."""
    said = _parsed(DiscoveryRequest, request)
    kind = KINDS_BY_TYPE_URL.get(said.type_url)
    if kind is None:
        return ReceivedRequest(None, said)
    names = _names(said.resource_names)
    return ReceivedRequest(
        ResourceRequest(kind, names, (), _nonce(said), _error(said), _NOTHING, bool(said.version_info)), said
    )


def _parsed(message: Any, request: bytes) -> Any:
    try:
        return message.FromString(request)
    except DecodeError:
        raise invalid_argument("this is no discovery request") from None


def _names(said: Iterable[str]) -> Sequence[str]:
    names = tuple(said)
    if len(names) > MAX_GATEWAY_NAMES:
        raise invalid_argument(f"a subscription may have at most {MAX_GATEWAY_NAMES} names")
    for name in names:
        if len(name) > MAX_NAME_LENGTH:
            raise invalid_argument(f"a name or version may have at most {MAX_NAME_LENGTH} characters")
    return names


def _nonce(said: Any) -> str:
    nonce: str = said.response_nonce
    if len(nonce) > MAX_NAME_LENGTH:
        raise invalid_argument(f"a nonce may have at most {MAX_NAME_LENGTH} characters")
    return nonce


def _error(said: Any) -> str:
    if not said.HasField("error_detail"):
        return ""
    words = " ".join(said.error_detail.message.split())[:MAX_REJECTION_LENGTH]
    return words or f"code {said.error_detail.code}, without words"


def _node(said: Any) -> ClientNode | None:
    if not said.HasField("node"):
        return None
    node = said.node
    texts = (node.id, node.user_agent_name, node_version(node))
    for text in texts:
        if len(text) > MAX_NODE_LENGTH or not (text.isprintable()):
            raise invalid_argument(
                f"a node's words must be one line of at most {MAX_NODE_LENGTH} characters, not {quoted(text)}"
            )
    metadata = MessageToDict(node.metadata) if node.HasField("metadata") else {}
    return ClientNode(*texts, MappingProxyType(metadata))


def node_version(node: Any) -> str:
    """The version that a node says it has, in either way of saying it."""
    if node.HasField("user_agent_build_version"):
        number = node.user_agent_build_version.version
        return f"{number.major_number}.{number.minor_number}.{number.patch}"
    return str(node.user_agent_version)
