"""One lease of etcd, kept alive for as long as it can be, and granted anew when it was lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Final

from adsum.core.backoff import Backoff
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, LeaseGone
from adsum.ports import Clock

REVOKE_TIMEOUT: Final = 2.0
"""Seconds that ending the lease may take; then it ends by itself."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Bounds of the pause before the next attempt, in seconds."""

_log = logging.getLogger("adsum.etcd")


class EtcdSession:
    """Holds a lease of `ttl` seconds. `granted` is called with the id of each new one, and the session is held once it
    has returned: what hangs on the lease is put there. Raise `EtcdError` in it to have it done again.
    """

    def __init__(
        self, etcd: EtcdClient, ttl: int, on_grant: Callable[[int], Awaitable[None]], clock: Clock, rng: Random
    ) -> None:
        self._etcd = etcd
        self._ttl = ttl
        self._granted = on_grant
        self._clock = clock
        self._rng = rng
        self._task: asyncio.Task[None] | None = None
        self._until = 0.0
        self.lease = 0
        """The lease that is held or was held last; 0: there was none yet."""
        self._failure = ""
        """Why the latest attempt failed; "" if it did not."""
        self._complained = False
        self._doubt = asyncio.Event()

    @property
    def trouble(self) -> str:
        """Why no lease is held; "" while one is."""
        return "" if self.is_held else self._failure

    @property
    def is_held(self) -> bool:
        """Whether the lease is certainly ours still: nobody else has seen it end."""
        return self._clock.now() < self._until

    def seconds_without_lease(self) -> float:
        """Seconds for which no lease was certainly ours; 0.0 while one is."""
        return max(0.0, self._clock.now() - self._until)

    def verify(self) -> None:
        """Have etcd say at once whether it still knows the lease: it may have lost everything."""
        self._doubt.set()

    def start(self) -> None:
        self._until = self._clock.now()
        self._task = asyncio.create_task(self._run(), name="adsum-etcd-session")

    async def close(self, *, revoke: bool = True) -> None:
        """Let the lease go, if etcd can be told; else, or without `revoke`, it ends by itself. Idempotent."""
        task, self._task = self._task, None
        self._end()
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self.lease and revoke:
            with suppress(EtcdError, TimeoutError):
                async with asyncio.timeout(REVOKE_TIMEOUT):
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
                self._etcd.demote(host)
                self._note(str(error))
            except Exception as error:
                # Ending here would end the node's part in the registry.
                _log.exception("the session with etcd failed")
                self._note(str(error))
            await self._clock.sleep(backoff.next(self._rng))

    async def _grant(self) -> None:
        asked = self._clock.now()
        lease = await self._etcd.grant(self._ttl)
        self.lease = lease
        await self._granted(lease)
        self._until = asked + self._ttl
        self._note("")

    async def _keep(self, backoff: Backoff) -> None:
        """Keep the lease until it is gone. Raises `LeaseGone`."""
        while True:
            asked = self._clock.now()
            try:
                await self._etcd.keep_alive(self.lease)
            except LeaseGone:
                self._end()
                raise
            except EtcdError as error:
                _log.debug("a sign of life was not taken: %s", error)
                self._note(str(error))
                await self._clock.sleep(min(backoff.next(self._rng), self._ttl / 6))
            else:
                self._until = asked + self._ttl
                self._note("")
                backoff.reset()
                await self._rest(self._ttl / 3)

    async def _rest(self, length: float) -> None:
        """Sleep for so many seconds, or until the lease is to be verified."""
        waiting = [asyncio.ensure_future(self._clock.sleep(length)), asyncio.ensure_future(self._doubt.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            self._doubt.clear()

    def _end(self) -> None:
        self._until = min(self._until, self._clock.now())

    def _note(self, failure: str) -> None:
        """Tell the operator when there is no session any more, and when there is one again."""
        self._failure = failure
        if failure and self.is_held:
            return  # The next sign of life may come in time.
        if failure and not self._complained:
            _log.error("there is no session with etcd: %s", failure)
        elif self._complained and not failure:
            _log.warning("there is a session with etcd again")
        self._complained = bool(failure)
