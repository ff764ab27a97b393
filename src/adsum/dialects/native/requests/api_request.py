"""A request whose path, query and body are parsed and checked before its operation uses them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from sys import intern
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from adsum import wire
from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials, presented_token
from adsum.core import validation
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.catalog.decisions import Caller
from adsum.core.errors import Invalid
from adsum.core.model import Key
from adsum.dialects.native.api.operation import MAX_BODY_BYTES, ApiOperation, QueryParameter
from adsum.dialects.native.api.parameters import PATH_PARAMETER_TYPES
from adsum.dialects.native.asgi import Headers, Receive, Scope, first_header
from adsum.dialects.native.problems import BodyTooLarge, MalformedRequest, MisdirectedRequest, NotJson
from adsum.dialects.native.requests.body_memory import BodyMemory

MAX_QUERY_PARAMETERS: Final = 1_024
"""Parameters of a query. A query with more is refused."""

FORWARDED_TO: Final = wire.FORWARDED_TO_HEADER.lower().encode()

_ACTOR: Final = wire.ACTOR_HEADER.lower().encode()
_KEYED = re.compile(r"(?P<name>[^\[\]]+)\[(?P<key>[^\[\]]+)\]")
_IN_PATH = re.compile(r"{(\w+)}")

T = TypeVar("T")


class ApiRequest:
    """A request for one operation."""

    def __init__(
        self,
        operation: ApiOperation,
        values: list[str],
        scope: Scope,
        receive: Receive,
        body_memory: BodyMemory,
        principal: Principal,
        access: AccessControl,
    ) -> None:
        """`principal` is the caller, as far as it has proved who it is."""
        self.operation = operation
        self.principal = principal
        self.access = access
        self._body_memory = body_memory
        self._reserved = 0
        """Bytes of the body memory that are reserved until the request is closed."""
        self.scope = scope
        self.receive = receive
        self.path = {
            name: parameter_value(name, value, PATH_PARAMETER_TYPES[name])
            for name, value in zip(_parameter_names(operation.path), values, strict=True)
        }
        self.query = _query(operation, scope["query_string"]) if scope["query_string"] else {}

    @property
    def key(self) -> Key:
        """The key of the instance that the path names."""
        return Key(self.path["service"], self.path["id"])

    def header(self, name: bytes) -> str | None:
        """Returns the first header of that name (in lower case)."""
        return first_header(self.scope["headers"], name)

    @property
    def if_none_match(self) -> str | None:
        """The entity tags of all If-None-Match headers, None if there is none."""
        lines = [value.decode("latin-1") for name, value in self.scope["headers"] if name == b"if-none-match"]
        return ", ".join(lines) if lines else None

    @property
    def named_services(self) -> Sequence[str]:
        """The services that the path and the query name."""
        service = self.path.get("service")
        queried = self.query.get("service", ())
        names = (queried,) if isinstance(queried, str) else queried
        return names if service is None else (service, *names)

    @property
    def peer(self) -> str:
        """The IP address that the request came from."""
        return peer_address(self.scope)

    @property
    def claimed_actor(self) -> str:
        """The actor that the request names without proof; "" if it names none."""
        return claimed_actor(self.scope["headers"])

    def caller(self, at: float) -> Caller:
        """Returns the caller to record for changes. `at`: the time on the wall clock."""
        return recorded_caller(self.principal, self.peer, self.claimed_actor, at)

    def require(self, action: Action, services: Iterable[str] = ()) -> None:
        """Returns if the caller may also do this action. Raises what `core.access.gate.require` raises."""
        self.access.require(self.principal, action, services)

    @property
    def is_forwarded(self) -> bool:
        """Returns whether the request claims that another node forwards it for a caller."""
        return self.operation.is_forwardable and self.header(FORWARDED_TO) is not None

    def is_forwarded_to(self, node_id: str) -> bool:
        """Returns whether another node forwarded the request to the node with this id.

        Raises `MisdirectedRequest` if it was forwarded to a node with another id, and what `require` raises if the
        caller is no node of this registry.
        """
        target = self.header(FORWARDED_TO)
        if target is not None:
            self.require(Action.FORWARD)
        if target is not None and target != node_id:
            raise MisdirectedRequest("another node answers here; the target node may advertise a wrong address")
        return target is not None

    def close(self) -> None:
        """Releases the memory of the body, when the request is answered."""
        reserved, self._reserved = self._reserved, 0
        self._body_memory.release(reserved)

    async def body(self, kind: type[T], *, reject_repeated_keys: bool = True) -> T:
        """Returns the body, decoded and validated.

        `reject_repeated_keys`: refuse an object with the same key twice, a mistake of people. It doubles the time.
        Raises `Invalid`, and what `json_body` raises.
        """
        body = await self.json_body()
        with json_errors():
            decoded = wire.decode(body, kind)
        if not reject_repeated_keys:
            return decoded
        if len(body) <= MAX_BODY_BYTES:
            require_unique_keys(body)
        else:  # A large body would delay other requests.
            await asyncio.to_thread(require_unique_keys, body)
        return decoded

    async def json_body(self) -> bytes:
        """Returns the bytes of a body with the content type of JSON.

        Raises `MalformedRequest`, `NotJson`, `Overloaded` and `BodyTooLarge`.
        """
        if not is_json(self.scope["headers"]):
            raise NotJson("the request needs the header Content-Type: application/json")
        return await self._read(self.operation.max_body)

    async def _read(self, max_bytes: int) -> bytes:
        length = self.header(b"content-length")
        if length is not None and length.isdecimal() and int(length) > max_bytes:
            raise BodyTooLarge(f"the body may have at most {max_bytes} bytes, not {length}")
        parts, size, more = [], 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise MalformedRequest("", "the connection ended before the body was complete")
            part = message.get("body", b"")
            size += len(part)
            if size > max_bytes:
                raise BodyTooLarge(f"the body may have at most {max_bytes} bytes")
            self._body_memory.reserve(len(part))
            self._reserved += len(part)
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)


def peer_address(scope: Scope) -> str:
    """Returns the IP address that a request came from."""
    client = scope.get("client")
    return plain_address(client[0] if client else "")


def plain_address(address: str) -> str:
    """Returns the IP address of a peer without the zone of IPv6, and an IPv4 address as such."""
    return address.removeprefix("::ffff:").partition("%")[0]


def claimed_actor(headers: Headers) -> str:
    """Returns the actor that a request names without proof; "" if it names none. Raises `Invalid`."""
    actor = first_header(headers, _ACTOR)
    if not actor:
        return ""
    with contextlib.suppress(UnicodeDecodeError):
        actor = actor.encode("latin-1").decode()  # Clients send names outside ASCII as UTF-8.
    validation.text(wire.ACTOR_HEADER, actor)
    return actor


def is_json(headers: Headers) -> bool:
    """Returns whether the content type of the body is JSON."""
    content_type = first_header(headers, b"content-type") or ""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def recorded_caller(principal: Principal, peer: str, claimed: str, at: float) -> Caller:
    """Returns the caller to record for changes. `claimed`: the actor that it names without proof."""
    peer = intern(peer)
    return Caller(intern(principal.actor(peer)), at, peer, intern(claimed), principal)


def request_credentials(headers: Headers, certificate: bytes, address: str) -> Credentials:
    """Returns what a request sends to prove who the caller is. `certificate` is that of its connection."""
    authorizations = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
    return Credentials(presented_token(authorizations), certificate, address)


@contextmanager
def json_errors() -> Iterator[None]:
    """Raises `MalformedRequest` in place of `Invalid` for a body that is not JSON at all."""
    try:
        yield
    except Invalid as error:
        if error.field:
            raise
        raise MalformedRequest("", error.problem) from None


def require_unique_keys(body: bytes) -> None:
    """Checks that no object in a decoded body has a key twice. Raises `MalformedRequest`."""
    repeated = wire.find_repeated_key(body)
    if repeated is not None:
        raise MalformedRequest(repeated, "must be given only once in an object")


@cache
def _parameter_names(path: str) -> tuple[str, ...]:
    """Returns the names of the parameters in a path."""
    return tuple(_IN_PATH.findall(path))


def _query(operation: ApiOperation, raw: bytes) -> dict[str, Any]:
    """Returns the values of a query by name.

    Raises `MalformedRequest` for a parameter that the operation does not have, and `Invalid` for a wrong value.
    """
    known: Mapping[str, QueryParameter] = {parameter.name: parameter for parameter in operation.query}
    query: dict[str, Any] = {}
    for name, text in _pairs(raw):
        keyed = _KEYED.fullmatch(name)
        parameter = known.get(keyed["name"] if keyed else name)
        if parameter is None or parameter.keyed != bool(keyed):
            raise MalformedRequest(
                name, f"this operation has no parameter {validation.quoted(name)}; {_known_parameters(operation)}"
            )
        value = parameter_value(name, text, parameter.type)
        if keyed:
            _set_once(query.setdefault(parameter.name, {}), keyed["key"], name, value)
        elif parameter.repeatable:
            query.setdefault(name, []).append(value)
        else:
            _set_once(query, name, name, value)
    return query


def _set_once(values: dict[str, Any], key: str, name: str, value: object) -> None:
    if key in values:
        raise MalformedRequest(name, "must be given only once")
    values[key] = value


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        text = raw.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_PARAMETERS)
    except ValueError as error:
        raise MalformedRequest("", f"the query can't be read: {error}") from None


def parameter_value(name: str, text: str, kind: Any) -> Any:
    """Returns the value of a parameter of the path or the query. Raises `Invalid`."""
    validation.text(name, text, len(text))
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        problem = str(error)
        raise Invalid(name, problem[:1].lower() + problem[1:]) from None


def _known_parameters(operation: ApiOperation) -> str:
    names = [f"{parameter.name}[…]" if parameter.keyed else parameter.name for parameter in operation.query]
    return f"it has {', '.join(names)}" if names else "it has none"
