"""The native dialect: an ASGI callable for everything, and before it a shortcut for what needs no waiting."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from random import Random
from typing import Final, Protocol

from adsum import wire
from adsum.core.errors import AdsumError
from adsum.dialects.native.api.operation_table import OPERATIONS
from adsum.dialects.native.api.router import Router
from adsum.dialects.native.asgi import ApiReply, Headers, Receive, Scope, Send
from adsum.dialects.native.events.watch_events import WatchEvents
from adsum.dialects.native.operations.intent import IntentOperations
from adsum.dialects.native.operations.node import NodeOperations
from adsum.dialects.native.operations.reads import LatestOutcomes, ReadOperations
from adsum.dialects.native.operations.watch import WatchOperations
from adsum.dialects.native.operations.writes import (
    AddressCheck,
    LeaseRenewer,
    NoOtherNodes,
    OtherNodes,
    WriteOperations,
)
from adsum.dialects.native.pages.fast_path import EncodedReply, FastPath
from adsum.dialects.native.pages.pages import Pages
from adsum.dialects.native.problems import NotReady, problem_reply
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.dialects.native.requests.body_memory import BodyMemory
from adsum.ports import Clock, Observer
from adsum.registry import Registry

UNKNOWN_OPERATION: Final = "unknown"
"""The operation of a request that leads nowhere."""

_log = logging.getLogger("adsum.native")


class ApiResponse(Protocol):
    """An answer, whole or endless."""

    @property
    def status(self) -> int: ...

    async def respond(self, scope: Scope, receive: Receive, send: Send, /) -> None: ...


OperationMethod = Callable[[ApiRequest], Awaitable[ApiResponse]]


class Native:
    """Speaks the native HTTP API about a registry."""

    def __init__(
        self,
        registry: Registry,
        keeper: LeaseRenewer,
        clock: Clock,
        observer: Observer,
        rng: Random,
        *,
        check_address: AddressCheck,
        latest_outcomes: LatestOutcomes,
        status: Callable[[], wire.NodeStatus],
        exposition: Callable[[], bytes],
        peers: OtherNodes | None = None,
        node: str = "",
    ) -> None:
        """`node`: the name of this node."""
        self._registry = registry
        self._clock = clock
        self._observer = observer
        self._pages = pages = Pages(registry)
        self._prompt = FastPath(registry, pages)
        self._router = Router(OPERATIONS)
        self._inflow = BodyMemory()
        rooms = (
            ReadOperations(registry, pages, latest_outcomes),
            WriteOperations(registry, keeper, peers or NoOtherNodes(), check_address, clock, node),
            WatchOperations(registry, WatchEvents(pages), rng),
            IntentOperations(registry, clock),
            NodeOperations(registry, status, exposition),
        )
        self._serves: Mapping[str, OperationMethod] = {route.name: _served(rooms, route.name) for route in OPERATIONS}

    @property
    def pages_bytes(self) -> int:
        """Bytes of memory that the pages of services take."""
        return self._pages.size

    def fast_path(self, target: bytes, headers: Headers) -> EncodedReply | None:
        """The hot path: the answer to a GET, if it needs no waiting (see `pages.fast_path.FastPath`)."""
        began = self._clock.now()
        answer = self._prompt.reply(target, headers)
        if answer is not None:
            self._observer.answered("read_service", answer.status, self._clock.now() - began)
        return answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = self._clock.now()
        operation, answer = await self._answer(scope, receive)
        if isinstance(answer, ApiReply):
            await answer.respond(scope, receive, send)
            self._observer.answered(operation, answer.status, self._clock.now() - began)
        else:
            self._observer.answered(operation, answer.status, self._clock.now() - began)
            await answer.respond(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, ApiResponse]:
        """The operation and its answer; every error becomes a problem document."""
        operation = UNKNOWN_OPERATION
        try:
            route, values = self._router.find(scope["method"], scope["raw_path"].decode("ascii"))
            operation = route.name
            if not (route.needs_no_catalog or self._registry.is_ready):
                raise NotReady("the catalog is not loaded yet")
            with closing(ApiRequest(route, values, scope, receive, self._inflow)) as asked:
                operation = "long_poll" if asked.query.get("wait") else operation
                return operation, await self._serves[route.name](asked)
        except AdsumError as error:
            self._observer.refused(operation, error)
            return operation, problem_reply(error)
        except Exception as error:
            _log.exception("%s failed", operation)
            self._observer.refused(operation, error)
            return operation, problem_reply(error)


def _served(rooms: tuple[object, ...], operation: str) -> OperationMethod:
    """The method of that name. Each operation has exactly one."""
    (serve,) = (getattr(room, operation) for room in rooms if hasattr(room, operation))
    checked: OperationMethod = serve
    return checked
