"""The synchronous client: the same interface without `await`, for Flask, scripts and worker processes.

The asynchronous client runs on one background loop for the process; `pick` and `call` never switch to its thread. A
client that was made before a fork (gunicorn --preload) works in the child too: it starts again there at first use. A
registration stays with the parent: in a child, draining and stopping do nothing.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Generator, Set
from concurrent.futures import Future
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import Any, Self, TypeVar

from adsum.client import background_loop
from adsum.client.background_loop import BackgroundLoop
from adsum.client.calls.call import Call
from adsum.client.calls.channel import READY_TIMEOUT, Channel
from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.calls.pick import Pick
from adsum.client.client import Client
from adsum.client.registration.registrar import START_TIMEOUT, Registrar
from adsum.client.registration.registrar_state import DrainResult, RegistrarState
from adsum.client.registration.termination import RegistrationBlock, thread_block
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import View
from adsum.core.errors import AdsumError
from adsum.core.model import Instance

T = TypeVar("T")

_log = logging.getLogger(__name__)
_clients: weakref.WeakSet[SyncClient] = weakref.WeakSet()


class SyncClient:
    """The synchronous client of one registry; takes the arguments of `adsum.Client`.

    It may be used from any thread, and connects at first use.
    """

    def __init__(self, urls: Any = None, **options: Any) -> None:
        Client(urls, **options)  # Raises for invalid arguments here, not at first use.
        self._arguments = (urls, options)
        self._lock = RLock()
        self._running: tuple[BackgroundLoop, Client] | None = None
        self._channels: dict[tuple[str, ChannelOptions | None, tuple[tuple[str, Any], ...]], SyncChannel] = {}
        self._on_demand_channels: weakref.WeakSet[SyncChannel] = weakref.WeakSet()
        self._registrars: list[SyncRegistrar] = []
        self._closed = False
        _clients.add(self)

    def channel(self, service: str, options: ChannelOptions | None = None, **fields: Any) -> SyncChannel:
        """Returns the channel to a service, the same one for the same options. Raises `Invalid` and `UnknownPolicy`."""
        key = (service, options, tuple(sorted(fields.items())))
        with self._lock:
            channel = self._channels.get(key)
            if channel is None:
                channel = SyncChannel(self, service, options, fields)
                channel.open()
                self._channels[key] = channel
            return channel

    def on_demand_channel(self, service: str, options: ChannelOptions | None = None) -> SyncChannel:
        """Like `Client.on_demand_channel`, but a new channel each time."""
        channel = SyncChannel(self, service, options, {}, on_demand=True)
        channel.open()
        with self._lock:
            self._on_demand_channels.add(channel)
        return channel

    def resolver(self, service: str) -> SyncResolver:
        """Returns the resolver of a service. Raises `Invalid`."""
        resolver = SyncResolver(self, service)
        resolver.open()
        return resolver

    def register(self, service: str, port: int, **options: Any) -> SyncRegistrar:
        """Returns a registrar, see `Client.register`: `with client.register("orders", 8000): …`. Raises `Invalid`."""

        async def make(client: Client) -> Registrar:
            return client.register(service, port, **options)

        registrar = SyncRegistrar(self, self.run(make))
        with self._lock:
            active = [other for other in self._registrars if other.state is not RegistrarState.STOPPED]
            self._registrars = [*active, registrar]
        return registrar

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Runs `await work(client)` on the background loop and returns its result.

        `client` is the asynchronous client.
        """
        loop, client = self._start()
        return loop.run(_await(work, client))

    def submit(self, work: Callable[[Client], Awaitable[T]]) -> Future[T]:
        """Starts `await work(client)` on the background loop, without waiting for it."""
        loop, client = self._start()
        return loop.submit(_await(work, client))

    def close(self) -> None:
        """Deregisters every instance without a drain, sends good-byes, and closes every connection. Idempotent."""
        with self._lock:
            running, self._running, self._closed = self._running, None, True
        if running is not None:
            loop, client = running
            try:
                loop.run(client.close())
            finally:
                background_loop.release(loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> tuple[BackgroundLoop, Client]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._running is None:
                urls, options = self._arguments
                self._running = (background_loop.acquire(), Client(urls, **options))
            return self._running

    def reset_after_fork(self) -> None:
        """Starts again at first use. Called in a forked child, where the parent's loop does not run."""
        self._lock, self._running = RLock(), None
        for channel in (*self._channels.values(), *self._on_demand_channels):
            channel.reset_after_fork()


class SyncChannel:
    """The channel to one service, made by `SyncClient.channel`.

    `pick` and `call` may be used from any thread and never wait for the background loop.
    """

    def __init__(
        self,
        client: SyncClient,
        service: str,
        options: ChannelOptions | None,
        fields: dict[str, Any],
        *,
        on_demand: bool = False,
    ) -> None:
        self.service = service
        self._client = client
        self._options = options
        self._fields = fields
        self._on_demand = on_demand
        self._channel: Channel | None = None

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Pick:
        """See `Channel.pick`."""
        return (self._channel or self.open()).pick(hash_key, exclude)

    def call(
        self, *, idempotent: bool, hash_key: bytes | str | None = None, options: CallOptions | None = None
    ) -> Call:
        """See `Channel.call`."""
        return (self._channel or self.open()).call(idempotent=idempotent, hash_key=hash_key, options=options)

    def ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until `pick` finds an endpoint. Raises `NoEndpoint` after `timeout` seconds."""
        channel = self._channel or self.open()
        self._client.run(lambda _: channel.ready(timeout))

    @property
    def options(self) -> ChannelOptions:
        return (self._channel or self.open()).options

    @property
    def view(self) -> View:
        """The latest view of the service."""
        return (self._channel or self.open()).resolver.view

    @property
    def closed(self) -> bool:
        return self._channel is not None and self._channel.closed

    @property
    def last_missed_at(self) -> float | None:
        """See `Channel.last_missed_at`."""
        return self._channel.last_missed_at if self._channel is not None else None

    def close_soon(self) -> None:
        """See `Channel.close_soon`."""
        if self._channel is not None:
            self._channel.close_soon()

    def open(self) -> Channel:
        """Makes the asynchronous channel of this process on the background loop, and returns it."""

        async def make(client: Client) -> Channel:
            if self._on_demand:
                return client.on_demand_channel(self.service, self._options)
            return client.channel(self.service, self._options, **self._fields)

        self._channel = channel = self._client.run(make)
        return channel

    def reset_after_fork(self) -> None:
        """Opens the channel again at first use. Called in a forked child."""
        self._channel = None


class SyncResolver:
    """The resolver of one service, made by `SyncClient.resolver`."""

    def __init__(self, client: SyncClient, service: str) -> None:
        self.service = service
        self._client = client

    @property
    def view(self) -> View:
        return self.open().view

    @property
    def connected(self) -> bool:
        return self.open().connected

    def watch(self) -> Generator[View, None, None]:
        """Yields the current view, if there is one, then every new one, until the client is closed."""
        views = self.open().watch()
        try:
            while True:
                view = self._client.run(lambda _: anext(views, None))
                if view is None:
                    return
                yield view
        finally:
            with suppress(RuntimeError):  # The client was closed meanwhile.
                self._client.run(lambda _: views.aclose())

    def open(self) -> Resolver:
        """Returns the asynchronous resolver of this process, and starts it if needed."""

        async def make(client: Client) -> Resolver:
            return client.resolver(self.service)

        return self._client.run(make)


class SyncRegistrar:
    """The registrar of one instance, made by `SyncClient.register`. It works only in the process that made it."""

    def __init__(self, client: SyncClient, registrar: Registrar) -> None:
        self._client = client
        self._registrar = registrar
        self._pid = os.getpid()
        self._block: RegistrationBlock | None = None

    @property
    def id(self) -> str:
        return self._registrar.id

    @property
    def service(self) -> str:
        return self._registrar.service

    @property
    def state(self) -> RegistrarState:
        return self._registrar.state

    @property
    def registered(self) -> bool:
        return self._registrar.registered

    @property
    def conflict(self) -> str:
        """See `Registrar.conflict`."""
        return self._registrar.conflict

    @property
    def denial(self) -> str:
        """See `Registrar.denial`."""
        return self._registrar.denial

    @property
    def instance(self) -> Instance | None:
        return self._registrar.instance

    def start(self, wait: float = START_TIMEOUT) -> None:
        """See `Registrar.start`."""
        if self._may("start"):
            self._client.run(lambda _: self._registrar.start(wait))

    def drain(self, wait: float | None = None, reason: str = "") -> DrainResult:
        """See `Registrar.drain`."""
        if not self._may("drain"):
            return DrainResult(done=False, reason="another process registered the instance")
        return self._client.run(lambda _: self._registrar.drain(wait, reason))

    def stop(self, reason: str = "") -> None:
        """See `Registrar.stop`."""
        if self._may("stop"):
            self._client.run(lambda _: self._registrar.stop(reason))

    def __enter__(self) -> Self:
        if self._registrar.signals:
            self._block = thread_block(self._submit_shut_down, self._registrar.shutdown_timeout)
            self._block.enter()
        try:
            self.start()
        except BaseException as error:
            self._leave_block(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        interrupt_drain = self._block is not None and self._block.ended_by_second_signal(error)
        try:
            if self._may("stop"):
                self._client.run(lambda _: self._registrar.shut_down(interrupt_drain=interrupt_drain))
        finally:
            self._leave_block(error)

    def _submit_shut_down(self) -> Future[None]:
        return self._client.submit(lambda _: self._registrar.shut_down())

    def _leave_block(self, error: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.leave(error)

    def _may(self, action: str) -> bool:
        """Returns whether this process registered the instance, so that it may do `action`."""
        may = os.getpid() == self._pid
        if not may:
            _log.debug(
                "%s/%s: this process can't %s it: process %d registered it", self.service, self.id, action, self._pid
            )
        return may


async def _await(work: Callable[[Client], Awaitable[T]], client: Client) -> T:
    return await work(client)


def _close_all() -> None:
    for client in list(_clients):
        with suppress(AdsumError, RuntimeError):
            client.close()


def _reset_after_fork() -> None:
    for client in list(_clients):
        client.reset_after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_reset_after_fork)
