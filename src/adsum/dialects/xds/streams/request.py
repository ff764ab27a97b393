"""Parses discovery requests of both variants into one form, and checks the bounds of everything in them."""

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
_NO_VERSIONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClientNode:
    """The node of a client, as it describes itself: id, program, version and metadata."""

    id: str
    agent: str
    version: str
    metadata: Mapping[str, object]

    @property
    def is_envoy(self) -> bool:
        return self.agent == "envoy"

    @property
    def is_observer(self) -> bool:
        """True if it only checks that the registry answers: it routes nothing, so that no drain waits for it."""
        return self.agent == HEALTH_PROBE_AGENT


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """A request for resources of one kind, which also answers a response (ACK or NACK).

    `names` are the names subscribed to: all of them in state-of-the-world, additional ones in delta. `nonce` is that of
    the answered response, "" for none; `error` is the reason of a NACK, "" for an ACK. `initial_versions` are the
    versions of the resources that the client has when it connects; state-of-the-world says only whether it has any
    (`is_returning`).
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
    """A received request. Its node is parsed only if needed: it may be long, and some clients send it every time.

    `body` is None for an unknown kind.
    """

    body: ResourceRequest | None
    message: Any

    def node(self) -> ClientNode | None:
        """Returns the node of the client, None if the request has none. Raises `StreamRefused`."""
        return _node(self.message)


def parse_delta(request: bytes) -> ReceivedRequest:
    """Parses a request of the delta variant. Raises `StreamRefused`."""
    message = _parsed(DeltaDiscoveryRequest, request)
    kind = KINDS_BY_TYPE_URL.get(message.type_url)
    if kind is None:
        return ReceivedRequest(None, message)
    names, unsubscribed = _names(message.resource_names_subscribe), _names(message.resource_names_unsubscribe)
    versions = dict(message.initial_resource_versions) if message.initial_resource_versions else _NO_VERSIONS
    if versions:
        _names(versions)
        _names(versions.values())
    body = ResourceRequest(kind, names, unsubscribed, _nonce(message), _error(message), versions, bool(versions))
    return ReceivedRequest(body, message)


def parse_sotw(request: bytes) -> ReceivedRequest:
    """Parses a request of the state-of-the-world variant. Raises `StreamRefused`."""
    message = _parsed(DiscoveryRequest, request)
    kind = KINDS_BY_TYPE_URL.get(message.type_url)
    if kind is None:
        return ReceivedRequest(None, message)
    names, is_returning = _names(message.resource_names), bool(message.version_info)
    body = ResourceRequest(kind, names, (), _nonce(message), _error(message), _NO_VERSIONS, is_returning)
    return ReceivedRequest(body, message)


def _parsed(message_type: Any, request: bytes) -> Any:
    try:
        return message_type.FromString(request)
    except DecodeError:
        raise invalid_argument("the message is not a discovery request") from None


def _names(values: Iterable[str]) -> Sequence[str]:
    names = tuple(values)
    if len(names) > MAX_GATEWAY_NAMES:
        raise invalid_argument(f"a subscription may have at most {MAX_GATEWAY_NAMES} names")
    for name in names:
        if len(name) > MAX_NAME_LENGTH:
            raise invalid_argument(f"a name or version may have at most {MAX_NAME_LENGTH} characters")
    return names


def _nonce(message: Any) -> str:
    nonce: str = message.response_nonce
    if len(nonce) > MAX_NAME_LENGTH:
        raise invalid_argument(f"a nonce may have at most {MAX_NAME_LENGTH} characters")
    return nonce


def _error(message: Any) -> str:
    if not message.HasField("error_detail"):
        return ""
    reason = " ".join(message.error_detail.message.split())[:MAX_REJECTION_LENGTH]
    return reason or f"code {message.error_detail.code}, without a message"


def _node(message: Any) -> ClientNode | None:
    if not message.HasField("node"):
        return None
    node = message.node
    texts = (node.id, node.user_agent_name, node_version(node))
    for text in texts:
        if len(text) > MAX_NODE_LENGTH or not text.isprintable():
            raise invalid_argument(
                f"a node's id, program and version must each be one line of at most {MAX_NODE_LENGTH} characters, not "
                f"{quoted(text)}"
            )
    metadata = MessageToDict(node.metadata) if node.HasField("metadata") else {}
    return ClientNode(*texts, MappingProxyType(metadata))


def node_version(node: Any) -> str:
    """Returns the version of a node's program, from either of the two fields that may have it."""
    if node.HasField("user_agent_build_version"):
        number = node.user_agent_build_version.version
        return f"{number.major_number}.{number.minor_number}.{number.patch}"
    return str(node.user_agent_version)
