"""A session with etcd: one lease that is kept alive, and replaced by a new one when it is lost."""

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
from adsum.outage_log import OutageLog
from adsum.ports import Clock

REVOKE_TIMEOUT: Final = 2.0
"""Seconds that revoking the lease may take. Otherwise the lease expires by itself."""
MIN_RETRY_PAUSE, MAX_RETRY_PAUSE = 0.1, 2.0
"""Seconds before the next attempt to get or renew a lease. The pause grows from the first bound to the second."""

_log = logging.getLogger("adsum.etcd")


class EtcdSession:
    """Holds a lease of `ttl` seconds.

    `on_grant` is called with the id of every new lease, and writes the keys under that lease. The session is held when
    it has returned. If it raises `EtcdError`, another lease is requested.
    """

    def __init__(
        self, etcd: EtcdClient, ttl: int, on_grant: Callable[[int], Awaitable[None]], clock: Clock, rng: Random
    ) -> None:
        self._etcd = etcd
        self._ttl = ttl
        self._on_grant = on_grant
        self._clock = clock
        self._rng = rng
        self._task: asyncio.Task[None] | None = None
        self._until = 0.0
        self.lease = 0
        """The id of the lease that is held or was held last; 0 if there was none yet."""
        self._failure = ""
        """The reason why the latest attempt failed; "" if it did not."""
        self._outage = OutageLog(
            _log,
            "there is no session with etcd: %s",
            "there is a session with etcd again",
        )
        self._verify = asyncio.Event()

    @property
    def trouble(self) -> str:
        """The reason why no lease is held; "" while one is held."""
        return "" if self.is_held else self._failure

    @property
    def is_held(self) -> bool:
        """True while the lease certainly has not ended yet, so that no other process has seen it end."""
        return self._clock.now() < self._until

    def seconds_without_lease(self) -> float:
        """Returns the seconds for which no lease was held for certain; 0.0 while one is held."""
        return max(0.0, self._clock.now() - self._until)

    def verify(self) -> None:
        """Renews the lease at once, which shows whether it still exists: etcd may have been wiped."""
        self._verify.set()

    def start(self) -> None:
        self._until = self._clock.now()
        self._task = asyncio.create_task(self._run(), name="adsum-etcd-session")

    async def close(self, *, revoke: bool = True) -> None:
        """Revokes the lease if etcd can be reached. Otherwise, or without `revoke`, it expires. Idempotent."""
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
        backoff = Backoff(MIN_RETRY_PAUSE, MAX_RETRY_PAUSE)
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
                self._set_failure(str(error))
            except Exception as error:
                # If this task ended, the process would have no session for ever.
                _log.exception("the session with etcd failed")
                self._set_failure(str(error))
            await self._clock.sleep(backoff.next(self._rng))

    async def _grant(self) -> None:
        requested_at = self._clock.now()
        lease = await self._etcd.grant(self._ttl)
        self.lease = lease
        await self._on_grant(lease)
        self._until = requested_at + self._ttl
        self._set_failure("")

    async def _keep(self, backoff: Backoff) -> None:
        """Renews the lease until it is gone. Raises `LeaseGone`."""
        while True:
            requested_at = self._clock.now()
            try:
                await self._etcd.keep_alive(self.lease)
            except LeaseGone:
                self._end()
                raise
            except EtcdError as error:
                _log.debug("the lease could not be renewed: %s", error)
                self._set_failure(str(error))
                await self._clock.sleep(min(backoff.next(self._rng), self._ttl / 6))
            else:
                self._until = requested_at + self._ttl
                self._set_failure("")
                backoff.reset()
                await self._rest(self._ttl / 3)

    async def _rest(self, length: float) -> None:
        """Sleeps for so many seconds, or until the lease is to be verified."""
        waits = [asyncio.ensure_future(self._clock.sleep(length)), asyncio.ensure_future(self._verify.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            self._verify.clear()

    def _end(self) -> None:
        self._until = min(self._until, self._clock.now())

    def _set_failure(self, failure: str) -> None:
        """Logs when the session is lost and when there is one again."""
        self._failure = failure
        if not failure:
            self._outage.recovered()
        elif not self.is_held:  # While it is held, the next renewal may succeed in time.
            self._outage.failed(failure)
