"""Probes the health of etcd: its version, its leader, and whether it accepts writes of this node.

A watch and a lease continue after etcd revoked the permissions of their user, so they do not reveal that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdError, EtcdRefused
from adsum.etcd.values import MemberStatus, Put, Unchanged
from adsum.outage_log import OutageLog
from adsum.ports import Clock
from adsum.stores.etcd.layout import Layout

HEALTH_PROBE_INTERVAL: Final = 5.0
"""Seconds between two probes."""

_log = logging.getLogger("adsum.store")


class EtcdHealthProbe:
    """Probes etcd periodically. Keeps its version and leader, and the time since which it refuses writes."""

    def __init__(self, etcd: EtcdClient, layout: Layout, clock: Clock) -> None:
        self._etcd = etcd
        self._key = layout.prefix + b"never"
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._status: MemberStatus | None = None
        self._leader = ""
        self._refused_at: float | None = None
        self._outage = OutageLog(
            _log,
            "etcd accepts no writes of this node: %s",
            "etcd accepts writes of this node again",
        )
        self.trouble = ""
        """The reason why etcd refuses writes of this node, by its last answer; "" if it accepts them."""

    def seconds_refused(self) -> float:
        """Returns the seconds since etcd began to refuse writes; 0.0 if it does not."""
        return 0.0 if self._refused_at is None else self._clock.now() - self._refused_at

    def condition(self) -> Mapping[str, str]:
        """Returns etcd's version and leader, for people."""
        if self._status is None:
            return {}
        return {"etcd": f"{self._status.version} at {self._etcd.host}", "leader": self._leader}

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="adsum-etcd-health")

    async def close(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                self._status = await self._etcd.status()
                names = {member.id: member.name for member in await self._etcd.members()}
                self._leader = names.get(self._status.leader, "none")
            except EtcdError as error:
                _log.debug("the status of etcd can't be read: %s", error)
            try:
                await self._probe_write()
            except EtcdError as error:
                _log.debug("the write probe of etcd got no answer: %s", error)
            await self._clock.sleep(HEALTH_PROBE_INTERVAL)

    async def _probe_write(self) -> None:
        """Requests a write whose condition never holds: revision 1 is that of an empty etcd. Raises `EtcdError`."""
        try:
            await self._etcd.commit([Unchanged(self._key, 1)], [Put(self._key, b"")])
        except EtcdRefused as error:
            self._set_trouble(str(error))
        else:
            self._set_trouble("")

    def _set_trouble(self, trouble: str) -> None:
        """Logs when etcd begins to refuse writes and when it accepts them again."""
        self.trouble = trouble
        if not trouble:
            self._refused_at = None
            self._outage.recovered()
            return
        if self._refused_at is None:
            self._refused_at = self._clock.now()
        self._outage.failed(trouble)
