"""A served socket's place in the catalog: from when its process listens until it stops, whatever the server is."""

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
"""Seconds, about, between two looks whether the turn is ours: so long an instance is without a registrar when the
worker that had the turn was killed. Its lease holds much longer."""
SETTLE_TIME: Final = 1.0
"""Seconds in which the other workers of a server that stops hear of it, too. After that, those who serve go on."""
MIN_SERVED_TIME: Final = 0.3
"""Seconds that a worker served at least which is taken for replaced. One that ends sooner may have been told to stop
before it could hear that."""
POLL_INTERVAL: Final = 0.02

_log = logging.getLogger(__name__)
_begun: set[tuple[int, str]] = set()
"""Which process attends to which service; a forked one knows this of its parent."""


class SocketRegistration:
    """One process's part in listing `service`. Everything runs on the loop that `start` ran in.

    `port` None: the one that this process listens on. `already_listening`: it does already, or somebody does for it. `options`
    are those of `Client.register`.
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
        self._listening = already_listening
        self._drain_wait = drain_wait
        self._options = options
        self._rng = rng or Random()
        self._workers: WorkerGroup | None = None
        self._registrar: Registrar | None = None
        self._task: asyncio.Task[None] | None = None
        self._parting: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._began = 0.0
        self._told = False
        """Whether the server stops, as far as we know."""

    def start(self, client: Client) -> None:
        """List it as soon as it listens and it is our turn. Raises `Invalid` for what can't be listed.

        A process whose parent attends to the service already, as an arbiter does for its workers, leaves it to that.
        """
        if (os.getppid(), self.service) in _begun:
            return
        client.register(self.service, self._port or 1, **self._options)
        _begun.add((os.getpid(), self.service))
        self._began = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._attend(client), name=f"adsum-attend-{self.service}")

    def mark_stopping(self) -> None:
        """We have been told to stop. A worker that ends without that is replaced by its server. From any thread."""
        self._told = True

    async def drain(self) -> None:
        """We are about to stop serving: return when nobody calls us any more, or others serve on. Idempotent."""
        if self._parting is None:
            self._parting = asyncio.create_task(self._part(), name=f"adsum-part-{self.service}")
        await asyncio.shield(self._parting)

    async def stop(self) -> None:
        """We serve no more: leave the catalog, unless the server goes on without us. Idempotent."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(), name=f"adsum-end-{self.service}")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._parting is not None and not self._parting.done():
            await self._parting
        await self._stop_attending()
        _begun.discard((os.getpid(), self.service))
        workers, self._workers = self._workers, None
        registrar, self._registrar = self._registrar, None
        if workers is None:
            return
        workers.leave()
        if registrar is not None:
            if await self._server_goes_on(workers):
                await registrar.detach()
            else:
                await registrar.stop("the server stopped")
        workers.close()

    async def _attend(self, client: Client) -> None:
        try:
            await self._take_part(client)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._task is not None:
                # Nobody said that we end: the loop does. So ends a server that was told to stop before it served.
                self._task, self._told = None, True
                await self.stop()
            raise

    async def _take_part(self, client: Client) -> None:
        """List it, or wait for our turn to."""
        try:
            port = self._port if self._listening and self._port else await wait_until_listening(self._port)
            self._port = port
            self._workers = workers = WorkerGroup(self.service, port)
            workers.join(own_socket_name(port))
            while not workers.try_lead():  # noqa: ASYNC110 - the system tells nobody of locks that are let go
                await asyncio.sleep(self._rng.uniform(LEADER_POLL_INTERVAL / 2, LEADER_POLL_INTERVAL))
            if self._told:
                return
            options = {"holder": workers.holder(), **self._options}
            self._registrar = client.register(self.service, port, drain_wait=self._drain_wait, **options)
            await self._registrar.start()
        except AdsumError as error:
            _log.error("%s: not listed: %s", self.service, error)

    async def _part(self) -> None:
        workers = self._workers
        if workers is None:
            await self._stop_attending()
            return
        workers.leave()
        others = await self._others_serve(workers)
        if self._registrar is None:
            await self._stop_attending()
            if not others:
                # All of us stop: to close our connections now would be too early for who is still being told.
                await _until(workers.is_drained, self._drain_wait + DRAIN_ANSWER_MARGIN)
        elif not others:
            if self._drain_wait > 0 and await self._registrar.await_registration(self._drain_wait):
                await self._registrar.drain(self._drain_wait, "the server is stopping")
            workers.mark_drained()

    async def _others_serve(self, workers: WorkerGroup) -> bool:
        return not await _until(lambda: not workers.others_serve(), SETTLE_TIME)

    async def _server_goes_on(self, workers: WorkerGroup) -> bool:
        """Whether other workers serve, or others are started in our place: all of them may be replaced at once."""
        served = asyncio.get_running_loop().time() - self._began >= MIN_SERVED_TIME

        def all_stop() -> bool:
            replaced = served and not self._told and self._port is not None and parent_listens(self._port)
            return not (replaced or workers.others_serve())

        return not await _until(all_stop, SETTLE_TIME)

    async def _stop_attending(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until(fact: Callable[[], bool], length: float) -> bool:
    """Whether it became so within `length` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + length
    while not fact():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(POLL_INTERVAL)
    return True
