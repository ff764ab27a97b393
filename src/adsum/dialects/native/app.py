"""The native dialect: an ASGI callable for everything, and before it a shortcut for what needs no waiting."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from random import Random
from typing import Final, Protocol

from adsum import wire
from adsum.core.errors import AdsumError
from adsum.dialects.native.api.operation_table import ROUTES
from adsum.dialects.native.api.router import Router
from adsum.dialects.native.asgi import Headers, Receive, Reply, Scope, Send
from adsum.dialects.native.events.watch_events import Events
from adsum.dialects.native.operations.intent import Declaring
from adsum.dialects.native.operations.node import About
from adsum.dialects.native.operations.reads import Outcomes, Reads
from adsum.dialects.native.operations.watch import Watching
from adsum.dialects.native.operations.writes import Admit, Nobody, Others, Renews, Writes
from adsum.dialects.native.pages.fast_path import Answer, Prompt
from adsum.dialects.native.pages.pages import Pages
from adsum.dialects.native.problems import NotReady, problem
from adsum.dialects.native.requests.api_request import Asked
from adsum.dialects.native.requests.body_memory import Inflow
from adsum.ports import Clock, Observer
from adsum.registry import Registry

UNKNOWN: Final = "unknown"
"""The operation of a request that leads nowhere."""

_log = logging.getLogger("adsum.native")


class Speaks(Protocol):
    """An answer, whole or endless."""

    @property
    def status(self) -> int: ...

    async def speak(self, scope: Scope, receive: Receive, send: Send, /) -> None: ...


Serve = Callable[[Asked], Awaitable[Speaks]]


class Native:
    """Speaks the native HTTP API about a registry."""

    def __init__(
        self,
        registry: Registry,
        keeper: Renews,
        clock: Clock,
        observer: Observer,
        rng: Random,
        *,
        admit: Admit,
        outcomes: Outcomes,
        status: Callable[[], wire.NodeStatus],
        exposition: Callable[[], bytes],
        others: Others | None = None,
        node: str = "",
    ) -> None:
        """`node`: the name of this node."""
        self._registry = registry
        self._clock = clock
        self._observer = observer
        self._pages = pages = Pages(registry)
        self._prompt = Prompt(registry, pages)
        self._router = Router(ROUTES)
        self._inflow = Inflow()
        rooms = (
            Reads(registry, pages, outcomes),
            Writes(registry, keeper, others or Nobody(), admit, clock, node),
            Watching(registry, Events(pages), rng),
            Declaring(registry, clock),
            About(registry, status, exposition),
        )
        self._serves: Mapping[str, Serve] = {route.operation: _served(rooms, route.operation) for route in ROUTES}

    @property
    def pages_size(self) -> int:
        """Bytes of memory that the pages of services take."""
        return self._pages.size

    def prompt(self, target: bytes, headers: Headers) -> Answer | None:
        """The hot path: the answer to a GET, if it needs no waiting (see `prompt.Prompt`)."""
        began = self._clock.now()
        answer = self._prompt.answer(target, headers)
        if answer is not None:
            self._observer.answered("read_service", answer.status, self._clock.now() - began)
        return answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = self._clock.now()
        operation, answer = await self._answer(scope, receive)
        if isinstance(answer, Reply):
            await answer.speak(scope, receive, send)
            self._observer.answered(operation, answer.status, self._clock.now() - began)
        else:
            self._observer.answered(operation, answer.status, self._clock.now() - began)
            await answer.speak(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, Speaks]:
        """The operation and its answer; every error becomes a problem document."""
        operation = UNKNOWN
        try:
            route, values = self._router.find(scope["method"], scope["raw_path"].decode("ascii"))
            operation = route.operation
            if not (route.early or self._registry.ready):
                raise NotReady("the catalog is not loaded yet")
            with closing(Asked(route, values, scope, receive, self._inflow)) as asked:
                operation = "long_poll" if asked.query.get("wait") else operation
                return operation, await self._serves[route.operation](asked)
        except AdsumError as error:
            self._observer.refused(operation, error)
            return operation, problem(error)
        except Exception as error:
            _log.exception("%s failed", operation)
            self._observer.refused(operation, error)
            return operation, problem(error)


def _served(rooms: tuple[object, ...], operation: str) -> Serve:
    """The method of that name. Each operation has exactly one."""
    (serve,) = (getattr(room, operation) for room in rooms if hasattr(room, operation))
    checked: Serve = serve
    return checked
