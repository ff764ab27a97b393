"""Registers a listening socket as an instance while its process serves, under any server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from random import Random
from typing import Any, Final

from adsum.client.client import Client
from adsum.client.registration.registrar import DRAIN_ANSWER_MARGIN, Registrar
from adsum.core.errors import AdsumError
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.integrations.listening_sockets import own_socket_name, parent_listens, wait_until_listening
from adsum.integrations.worker_group import WorkerGroup

LEADER_POLL_INTERVAL: Final = 0.5
"""Seconds, about, between two attempts to become the leader. An instance has no registrar for that long when its leader
is killed; its lease lasts much longer."""
SETTLE_TIME: Final = 1.0
"""Seconds within which the other workers of a stopping server receive its signal, too. Workers that still serve after
that go on."""
MIN_SERVED_TIME: Final = 0.3
"""Seconds that a worker must have served to count as replaced when it ends. One that ends sooner may have been stopped
before it could handle the signal."""
POLL_INTERVAL: Final = 0.02
"""Seconds between two polls of a condition."""

_log = logging.getLogger(__name__)
_registering: set[tuple[int, str]] = set()
"""The services that each process registers, as (process id, service). A forked process inherits its parent's entry."""


class SocketRegistration:
    """One process's part in registering `service`. Everything runs on the loop on which `start` was called.

    `port` None is the port that this process listens on. `already_listening`: the socket is open, here or in another
    process. `options` are those of `Client.register`.
    """

    def __init__(
        self,
        service: str,
        port: int | None,
        *,
        already_listening: bool = False,
        drain_wait: float = DEFAULT_DRAIN_WAIT,
        rng: Random | None = None,
        **options: Any,
    ) -> None:
        self.service = service
        self._port = port
        self._already_listening = already_listening
        self._drain_wait = drain_wait
        self._options = options
        self._rng = rng or Random()
        self._workers: WorkerGroup | None = None
        self._registrar: Registrar | None = None
        self._task: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._stopping = False
        """True once the server is stopping, as far as this process knows."""

    def start(self, client: Client) -> None:
        """Registers the instance as soon as the process listens and leads. Raises `Invalid` for a wrong registration.

        If the parent process registers the service, as gunicorn's arbiter does, this process does nothing.
        """
        if (os.getppid(), self.service) in _registering:
            return
        client.register(self.service, self._port or 1, **self._options)
        _registering.add((os.getpid(), self.service))
        self._started_at = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(client), name=f"adsum-register-{self.service}")

    def mark_stopping(self) -> None:
        """Records that this process has received a stop signal. Thread-safe.

        A worker that ends without one counts as replaced by its server.
        """
        self._stopping = True

    async def drain(self) -> None:
        """Drains the instance before this process stops serving. Idempotent.

        Returns when no consumer calls this process any more, or when other workers go on.
        """
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name=f"adsum-drain-{self.service}")
        await asyncio.shield(self._draining)

    async def stop(self) -> None:
        """Deregisters the instance once this process serves no more, unless other workers go on. Idempotent."""
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stop(), name=f"adsum-stop-{self.service}")
        await asyncio.shield(self._stop_task)

    async def _stop(self) -> None:
        if self._draining is not None and not self._draining.done():
            await self._draining
        await self._cancel_task()
        _registering.discard((os.getpid(), self.service))
        workers, self._workers = self._workers, None
        registrar, self._registrar = self._registrar, None
        if workers is None:
            return
        workers.leave()
        if registrar is not None:
            if await self._is_replaced(workers):
                await registrar.detach()
            else:
                await registrar.stop("the server stopped")
        workers.close()

    async def _run(self, client: Client) -> None:
        try:
            await self._register(client)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._task is not None:
                # The loop itself is ending. A server ends like this when it is stopped before it served.
                self._task, self._stopping = None, True
                await self.stop()
            raise

    async def _register(self, client: Client) -> None:
        """Registers the instance, now or once this process leads."""
        try:
            port = self._port if self._already_listening and self._port else await wait_until_listening(self._port)
            self._port = port
            self._workers = workers = WorkerGroup(self.service, port)
            workers.join(own_socket_name(port))
            while not workers.try_lead():  # noqa: ASYNC110 - the system does not report released locks
                await asyncio.sleep(self._rng.uniform(LEADER_POLL_INTERVAL / 2, LEADER_POLL_INTERVAL))
            if self._stopping:
                return
            options = {"holder": workers.holder(), **self._options}
            self._registrar = client.register(self.service, port, drain_wait=self._drain_wait, **options)
            await self._registrar.start()
        except AdsumError as error:
            _log.error("%s: not registered: %s", self.service, error)

    async def _drain(self) -> None:
        workers = self._workers
        if workers is None:
            await self._cancel_task()
            return
        workers.leave()
        others = await self._others_go_on(workers)
        if self._registrar is None:
            await self._cancel_task()
            if not others:
                # Every worker stops. Keep the connections open until the leader has drained the instance.
                await _becomes_true(workers.is_drained, self._drain_wait + DRAIN_ANSWER_MARGIN)
        elif not others:
            if self._drain_wait > 0 and await self._registrar.await_registration(self._drain_wait):
                await self._registrar.drain(self._drain_wait, "the server is stopping")
            workers.mark_drained()

    async def _others_go_on(self, workers: WorkerGroup) -> bool:
        return not await _becomes_true(lambda: not workers.others_serve(), SETTLE_TIME)

    async def _is_replaced(self, workers: WorkerGroup) -> bool:
        """Returns whether other workers serve, or will be started in place of this one. A server may replace all at
        once.
        """
        served = asyncio.get_running_loop().time() - self._started_at >= MIN_SERVED_TIME

        def is_over() -> bool:
            replaced = served and not self._stopping and self._port is not None and parent_listens(self._port)
            return not (replaced or workers.others_serve())

        return not await _becomes_true(is_over, SETTLE_TIME)

    async def _cancel_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _becomes_true(condition: Callable[[], bool], timeout: float) -> bool:
    """Returns whether the condition became true within `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_INTERVAL)
    return True
