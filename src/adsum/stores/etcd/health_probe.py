"""Asking etcd how it is. A watch and a lease go on when our user may do nothing any more: they don't say so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdRefused
from adsum.etcd.values import MemberStatus, Put, Unchanged
from adsum.ports import Clock
from adsum.stores.etcd.layout import Layout

HEALTH_PROBE_INTERVAL: Final = 5.0
"""Seconds between two questions."""

_log = logging.getLogger("adsum.store")


class EtcdHealthProbe:
    """Knows etcd's version and leader, and whether it would take a write of ours."""

    def __init__(self, etcd: EtcdClient, layout: Layout, clock: Clock) -> None:
        self._etcd = etcd
        self._key = layout.prefix + b"never"
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._state: MemberStatus | None = None
        self._leader = ""
        self._refused_at: float | None = None
        self.trouble = ""
        """Why etcd takes no writes of ours, though it answers; "" while it does."""

    def seconds_refused(self) -> float:
        """Seconds since it first said so; 0.0 if it does not."""
        return 0.0 if self._refused_at is None else self._clock.now() - self._refused_at

    def condition(self) -> Mapping[str, str]:
        """For people."""
        return {"etcd": f"{self._state.version} at {self._etcd.host}", "leader": self._leader} if self._state else {}

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="adsum-etcd-inquire")

    async def close(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                self._state = await self._etcd.status()
                names = {each.id: each.name for each in await self._etcd.members()}
                self._leader = names.get(self._state.leader, "none")
            except EtcdError as error:
                _log.debug("etcd does not say how it is: %s", error)
            try:
                await self._try()
            except EtcdError as error:
                _log.debug("etcd does not say whether it takes writes: %s", error)
            await self._clock.sleep(HEALTH_PROBE_INTERVAL)

    async def _try(self) -> None:
        """Ask for a write that is never done: no key has revision 1, that of an empty etcd. Raises `EtcdError`."""
        try:
            await self._etcd.commit([Unchanged(self._key, 1)], [Put(self._key, b"")])
        except EtcdRefused as error:
            self._note(str(error))
        else:
            self._note("")

    def _note(self, trouble: str) -> None:
        """Tell the operator when etcd begins to refuse, and when it no longer does."""
        if trouble and self._refused_at is None:
            _log.error("etcd takes no writes of this node: %s", trouble)
            self._refused_at = self._clock.now()
        elif self._refused_at is not None and not trouble:
            _log.warning("etcd takes writes of this node again")
            self._refused_at = None
        self.trouble = trouble
