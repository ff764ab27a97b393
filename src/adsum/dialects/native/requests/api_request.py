"""One request as its operation sees it: values parsed and bounded before anything is done."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from sys import intern
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from adsum import wire
from adsum.core import validation
from adsum.core.catalog.decisions import Caller
from adsum.core.errors import Invalid
from adsum.core.model import Key
from adsum.dialects.native.api.operation_table import MAX_BODY_BYTES, PATH_PARAMETER_TYPES, ApiOperation, QueryParameter
from adsum.dialects.native.asgi import Receive, Scope, find_header
from adsum.dialects.native.problems import BodyTooLarge, MalformedRequest, NotJson
from adsum.dialects.native.requests.body_memory import BodyMemory

MAX_QUERY_PARAMETERS: Final = 1_024
"""How many parameters one query has at most; one with more is refused."""

_KEYED = re.compile(r"(?P<name>[^\[\]]+)\[(?P<key>[^\[\]]+)\]")
_IN_PATH = re.compile(r"{(\w+)}")

T = TypeVar("T")


class ApiRequest:
    """A request for one route."""

    def __init__(
        self, route: ApiOperation, values: list[str], scope: Scope, receive: Receive, body_memory: BodyMemory
    ) -> None:
        self.route = route
        self._inflow = body_memory
        self._held = 0
        """Bytes of its body that count as held until it is closed."""
        self.scope = scope
        self.receive = receive
        self.path = {
            name: _value(name, value, PATH_PARAMETER_TYPES[name])
            for name, value in zip(_names(route.path), values, strict=True)
        }
        self.query = _query(route, scope["query_string"]) if scope["query_string"] else {}

    @property
    def key(self) -> Key:
        """The instance that the path names."""
        return Key(self.path["service"], self.path["id"])

    def header(self, name: bytes) -> str | None:
        """The first header of that lower-case name."""
        return find_header(self.scope, name)

    @property
    def if_none_match(self) -> str | None:
        """What If-None-Match says, in however many lines."""
        lines = [value.decode("latin-1") for name, value in self.scope["headers"] if name == b"if-none-match"]
        return ", ".join(lines) if lines else None

    @property
    def peer(self) -> str:
        """The address that the request came from."""
        client = self.scope.get("client")
        address: str = client[0] if client else ""
        return address.removeprefix("::ffff:").partition("%")[0]

    @property
    def actor(self) -> str:
        """Who asks, for the record."""
        actor = self.header(wire.ACTOR_HEADER.lower().encode())
        if not actor:
            return self.peer
        with contextlib.suppress(UnicodeDecodeError):
            actor = actor.encode("latin-1").decode()  # People's names are sent as UTF-8 by all that can send them.
        validation.text(wire.ACTOR_HEADER, actor)
        return actor

    def caller(self, at: float) -> Caller:
        """Who asks, for the record, at an instant on the wall clock."""
        actor, peer = intern(self.actor), intern(self.peer)
        return Caller(actor, at, peer if peer != actor else "")

    def close(self) -> None:
        """It is answered."""
        held, self._held = self._held, 0
        self._inflow.release(held)

    async def body(self, kind: type[T], *, reject_repeated_keys: bool = True) -> T:
        """The body, decoded and validated. Raises `Invalid`, `MalformedRequest`, `NotJson`, `Overloaded` and `BodyTooLarge`.

        `reject_repeated_keys`: people may have written it, and so it is also looked for keys that are given twice.
        """
        body = await self.json_body()
        with json_errors():
            decoded = wire.decode(body, kind)
        if not reject_repeated_keys:
            return decoded
        if len(body) <= MAX_BODY_BYTES:
            require_unique_keys(body)
        else:  # It takes longer than others should wait.
            await asyncio.to_thread(require_unique_keys, body)
        return decoded

    async def json_body(self) -> bytes:
        """The body, which is declared as JSON. Raises `MalformedRequest`, `NotJson`, `Overloaded` and `BodyTooLarge`."""
        declared = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if declared != "application/json":
            raise NotJson("the body must be declared as application/json")
        return await self._read(self.route.max_body)

    async def _read(self, most: int) -> bytes:
        length = self.header(b"content-length")
        if length is not None and length.isdecimal() and int(length) > most:
            raise BodyTooLarge(f"the body may have at most {most} bytes, not {length}")
        parts, size, more = [], 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise MalformedRequest("", "the connection ended within the body")
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise BodyTooLarge(f"the body may have at most {most} bytes")
            self._inflow.reserve(len(part))
            self._held += len(part)
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)


@contextmanager
def json_errors() -> Iterator[None]:
    """A body that is no JSON at all is malformed, and not invalid."""
    try:
        yield
    except Invalid as error:
        if error.field:
            raise
        raise MalformedRequest("", error.problem) from None


def require_unique_keys(body: bytes) -> None:
    """A body that was decoded has each key once in one object. Raises `MalformedRequest`."""
    repeated = wire.find_repeated_key(body)
    if repeated is not None:
        raise MalformedRequest(repeated, "must be given once in one object")


@cache
def _names(path: str) -> tuple[str, ...]:
    """The names of the values in a route's path."""
    return tuple(_IN_PATH.findall(path))


def _query(route: ApiOperation, raw: bytes) -> dict[str, Any]:
    """The parameters by name. Raises `MalformedRequest` for what the route does not know, `Invalid` for a wrong value."""
    known: Mapping[str, QueryParameter] = {parameter.name: parameter for parameter in route.query}
    query: dict[str, Any] = {}
    for name, text in _pairs(raw):
        keyed = _KEYED.fullmatch(name)
        parameter = known.get(keyed["name"] if keyed else name)
        if parameter is None or parameter.keyed != bool(keyed):
            raise MalformedRequest(name, f"there is no parameter {validation.quoted(name)}; {_offer(route)}")
        value = _value(name, text, parameter.type)
        if keyed:
            _once(query.setdefault(parameter.name, {}), keyed["key"], name, value)
        elif parameter.repeatable:
            query.setdefault(name, []).append(value)
        else:
            _once(query, name, name, value)
    return query


def _once(values: dict[str, Any], key: str, name: str, value: object) -> None:
    if key in values:
        raise MalformedRequest(name, "must be given once")
    values[key] = value


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        text = raw.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_PARAMETERS)
    except ValueError as error:
        raise MalformedRequest("", f"the query can't be read: {error}") from None


def _value(name: str, text: str, kind: Any) -> Any:
    validation.text(name, text, len(text))
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        words = str(error)
        raise Invalid(name, words[:1].lower() + words[1:]) from None


def _offer(route: ApiOperation) -> str:
    names = [f"{each.name}[…]" if each.keyed else each.name for each in route.query]
    return f"there are {', '.join(names)}" if names else "this operation has none"
