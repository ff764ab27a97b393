"""Requests: what clients say, in one form for both variants, with a bound on all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from adsum.core.validation import shown
from adsum.dialects.xds.bounds import MAX_NAME, MAX_NAMES, MAX_NODE, MAX_WORDS
from adsum.dialects.xds.telemetry.refusals import malformed
from adsum.gateway.profile import ONLOOKER
from adsum.gateway.resources.resources import Kind

KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.value: kind for kind in Kind})
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """Who asks, as it says itself: its id, which program it is, its version and its metadata."""

    id: str
    agent: str
    version: str
    metadata: Mapping[str, object]

    @property
    def is_envoy(self) -> bool:
        return self.agent == "envoy"

    @property
    def is_onlooker(self) -> bool:
        """Whether it only asks if somebody answers: no drain waits for it."""
        return self.agent == ONLOOKER


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    `names` are those subscribed to: all of them in state-of-the-world, further ones in delta. `nonce` is that of the
    response it answers, "" for none; `error` says why that one was rejected. `brought` says what the client already
    has, by version; in state-of-the-world all that is known is whether it has anything (`returning`).
    """

    kind: Kind
    names: Sequence[str]
    dropped: Sequence[str]
    nonce: str
    error: str
    brought: Mapping[str, str]
    returning: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; what it says of its node, which may be long and is said again and again, is read if asked.

    `asked` is None for a kind that nobody knows here.
    """

    asked: Asked | None
    said: Any

    def node(self) -> Node | None:
        """Who asks, where that is said. Raises `Refused`."""
        return _node(self.said)


def delta(request: bytes) -> Request:
    """Read a request of the delta variant. Raises `Refused`."""
    said = _parsed(DeltaDiscoveryRequest, request)
    kind = KINDS.get(said.type_url)
    if kind is None:
        return Request(None, said)
    names, dropped = _names(said.resource_names_subscribe), _names(said.resource_names_unsubscribe)
    brought = dict(said.initial_resource_versions) if said.initial_resource_versions else _NOTHING
    if brought:
        _names(brought)
        _names(brought.values())
    return Request(Asked(kind, names, dropped, _nonce(said), _error(said), brought, bool(brought)), said)


def sotw(request: bytes) -> Request:
    """Read a request for the state of the world. Raises `Refused`."""
    said = _parsed(DiscoveryRequest, request)
    kind = KINDS.get(said.type_url)
    if kind is None:
        return Request(None, said)
    names = _names(said.resource_names)
    return Request(Asked(kind, names, (), _nonce(said), _error(said), _NOTHING, bool(said.version_info)), said)


def _parsed(message: Any, request: bytes) -> Any:
    try:
        return message.FromString(request)
    except DecodeError:
        raise malformed("this is no discovery request") from None


def _names(said: Iterable[str]) -> Sequence[str]:
    names = tuple(said)
    if len(names) > MAX_NAMES:
        raise malformed(f"a subscription may have at most {MAX_NAMES} names")
    for name in names:
        if len(name) > MAX_NAME:
            raise malformed(f"a name or version may have at most {MAX_NAME} characters")
    return names


def _nonce(said: Any) -> str:
    nonce: str = said.response_nonce
    if len(nonce) > MAX_NAME:
        raise malformed(f"a nonce may have at most {MAX_NAME} characters")
    return nonce


def _error(said: Any) -> str:
    if not said.HasField("error_detail"):
        return ""
    words = " ".join(said.error_detail.message.split())[:MAX_WORDS]
    return words or f"code {said.error_detail.code}, without words"


def _node(said: Any) -> Node | None:
    if not said.HasField("node"):
        return None
    node = said.node
    texts = (node.id, node.user_agent_name, version(node))
    for text in texts:
        if len(text) > MAX_NODE or not (text.isprintable()):
            raise malformed(f"a node's words must be one line of at most {MAX_NODE} characters, not {shown(text)}")
    metadata = MessageToDict(node.metadata) if node.HasField("metadata") else {}
    return Node(*texts, MappingProxyType(metadata))


def version(node: Any) -> str:
    """The version that a node says it has, in either way of saying it."""
    if node.HasField("user_agent_build_version"):
        number = node.user_agent_build_version.version
        return f"{number.major_number}.{number.minor_number}.{number.patch}"
    return str(node.user_agent_version)
