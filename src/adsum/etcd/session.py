"""One lease of etcd, kept alive for as long as it can be, and granted anew when it was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any, Final

import grpc.aio

from adsum.core.backoff import Backoff
from adsum.etcd.connection import END, Etcd, translated
from adsum.etcd.errors import EtcdError, LeaseGone, Unreachable
from adsum.etcd.messages import MESSAGE
from adsum.ports import Clock

ANSWER: Final = 2.0
"""Seconds within which a sign of life must be answered; then another member is asked."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Bounds of the pause before the next attempt, in seconds."""

_KeepAlive: Final = MESSAGE["LeaseKeepAliveRequest"]
_log = logging.getLogger("adsum.etcd")


class Session:
    """Holds a lease of `ttl` seconds. `granted` is called with the id of each new one, and the session is held once it
    has returned: what hangs on the lease is put there. Raise `EtcdError` in it to have it done again.
    """

    def __init__(
        self, etcd: Etcd, ttl: int, granted: Callable[[int], Awaitable[None]], clock: Clock, rng: Random
    ) -> None:
        self._etcd = etcd
        self._ttl = ttl
        self._granted = granted
        self._clock = clock
        self._rng = rng
        self._task: asyncio.Task[None] | None = None
        self._until = 0.0
        self.lease = 0
        """The lease that is held or was held last; 0: there was none yet."""

    @property
    def held(self) -> bool:
        """Whether the lease is certainly ours still: nobody else has seen it end."""
        return self._clock.now() < self._until

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="adsum-etcd-session")

    async def close(self) -> None:
        """Let the lease go, if etcd can be told; else it ends by itself. Idempotent."""
        task, self._task = self._task, None
        self._until = 0.0
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self.lease:
            with suppress(EtcdError, TimeoutError):
                async with asyncio.timeout(ANSWER):
                    await self._etcd.revoke(self.lease)

    async def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            host = self._etcd.host
            try:
                await self._grant()
                backoff.reset()
                await self._keep(backoff)
            except LeaseGone:
                _log.warning("the session with etcd was lost; another begins")
                continue
            except EtcdError as error:
                self._etcd.failed(host)
                _log.debug("no session with etcd: %s", error)
            except Exception:
                # Ending here would end the node's part in the registry.
                _log.exception("the session with etcd failed")
            await self._clock.sleep(backoff.next(self._rng))

    async def _grant(self) -> None:
        asked = self._clock.now()
        lease = await self._etcd.grant(self._ttl)
        self.lease = lease
        await self._granted(lease)
        self._until = asked + self._ttl

    async def _keep(self, backoff: Backoff) -> None:
        """Keep the lease until it is gone. Raises `LeaseGone`."""
        while True:
            host = self._etcd.host
            try:
                host, call = await self._etcd.stream("Lease/LeaseKeepAlive", "LeaseKeepAliveResponse")
                try:
                    while True:
                        await self._sign(call)
                        backoff.reset()
                        await self._clock.sleep(self._ttl / 3)
                finally:
                    call.cancel()
            except LeaseGone:
                self._until = 0.0
                raise
            except EtcdError as error:
                self._etcd.failed(host)
                _log.debug("a sign of life was not taken: %s", error)
                await self._clock.sleep(min(backoff.next(self._rng), self._ttl / 6))

    async def _sign(self, call: Any) -> None:
        asked = self._clock.now()
        try:
            async with asyncio.timeout(ANSWER):
                await call.write(_KeepAlive(ID=self.lease))
                answer = await call.read()
        except TimeoutError:
            raise Unreachable(f"no answer within {ANSWER:g} s") from None
        except asyncio.InvalidStateError as error:
            raise Unreachable(str(error)) from None
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                self._etcd.forget_token()
            raise translated(error) from None
        if answer is END:
            raise Unreachable("the stream ended")
        if answer.TTL <= 0:
            raise LeaseGone(f"lease {self.lease:x} is gone")  # No error status says so.
        self._until = asked + self._ttl
