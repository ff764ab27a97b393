"""One Envoy of a gateway: how it is started, and when it serves."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.envoy.admin import Admin, NoAnswer
from adsum.envoy.certificates import certificate
from adsum.envoy.plan import Place, Plan
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.access_log import AccessLog
from adsum.envoy.process.bootstrap import SECRETS, bootstrap, remembered, secret
from adsum.envoy.process.envoy_log import ENVOY_LEVELS, FORMAT
from adsum.envoy.process.envoy_process import Process
from adsum.envoy.registry_health.last_good_config import Told
from adsum.envoy.registry_health.xds_health import trouble

POLL: Final = 0.05
"""Seconds between two questions to an Envoy that comes up or goes."""
PATIENCE: Final = 3.0
"""Seconds between two looks at what it waits for; each new reason is said."""
HANDOVER: Final = 1.0
"""Seconds by which one that was replaced outlives the requests that it may still finish."""

_log = logging.getLogger("adsum.envoy")


@dataclass(frozen=True, slots=True)
class Incarnation:
    """A running Envoy and the plan that it follows."""

    plan: Plan
    folder: Path
    process: Process
    admin: Admin
    remembers: bool
    """Whether it serves what the one before was told, for want of a registry."""

    @classmethod
    def start(
        cls,
        plan: Plan,
        pair: bytes,
        folder: Path,
        follows: Sequence[str],
        told: Told | None,
        access_log: AccessLog,
        answering: Collection[Place],
    ) -> Incarnation:
        """Start it in a folder of its own, to show `pair`.

        `follows` are a lineage's arguments, `told` is what to serve without a registry, `answering` are the registry
        nodes to try first.
        """
        admin, path = folder / "admin.sock", folder / "bootstrap.json"
        path.write_text(
            json.dumps(bootstrap(plan, admin, answering) if told is None else remembered(plan, admin, told))
        )
        (folder / SECRETS).write_text(json.dumps(secret(folder)))
        certificate.show(pair, folder)
        process = Process(_argv(plan, path, follows), folder, access_log)
        return cls(plan, folder, process, Admin(admin), told is not None)

    @property
    def leaves_within(self) -> float:
        """Seconds after which it has ended once another one has taken over."""
        return _drain_time(self.plan) + HANDOVER

    async def until_serving(self, *, strict: bool) -> None:
        """Return once it takes requests; that may take as long as the registry is away.

        Raises `CannotServe` if it has ended, and, if `strict`, when it can't listen somewhere.
        """
        waited, looked, why = 0.0, 0.0, ""
        while not await self._serves(strict=strict):
            if not self.process.running:
                raise CannotServe(f"Envoy ended at once: {self.process.story()}")
            await asyncio.sleep(POLL)
            waited += POLL
            if waited - looked >= PATIENCE:
                looked, before = waited, why
                why = await self._what_for()
                if why != before:  # A slow start of Envoy comes first, a registry that is away after it.
                    _log.warning("it takes no requests yet: %s", why)

    async def _serves(self, *, strict: bool) -> bool:
        try:
            listeners = await self.admin.listeners()
            if listeners.refused and strict:
                raise CannotServe(f"Envoy can't listen: {listeners.refused[0]}")
            up = listeners.up.issuperset(self.plan.places) or bool(listeners.refused and listeners.up)
            return up and await self.admin.live()
        except NoAnswer:
            return False

    async def _what_for(self) -> str:
        places = ", ".join(f"{host}:{port}" for host, port in self.plan.registry)
        if self.process.refusal:
            return f"the registry at {places} refuses this gateway: {self.process.refusal}"
        try:
            if await self.admin.connected():
                return f"the registry at {places} has not told it anything"
        except NoAnswer as error:
            return str(error)
        why = await trouble(self.plan.registry)
        if not why:
            return f"a registry answers at {places}, and has not told it anything"
        return f"no registry answers at {places} (is `adsum serve` running there? --xds says where to look): {why}"


def _argv(plan: Plan, bootstrap: Path, follows: Sequence[str]) -> list[str | Path]:
    drain = _drain_time(plan)
    return [
        plan.binary.path,
        *("-c", bootstrap),
        *follows,
        *("--concurrency", str(plan.concurrency)),
        *("--drain-time-s", str(drain)),
        *("--parent-shutdown-time-s", str(drain + int(HANDOVER))),
        # Every answer ends its connection from the first second on; by default more and more do.
        *("--drain-strategy", "immediate"),
        *("-l", ENVOY_LEVELS[plan.log_level]),
        *("--log-format", FORMAT),
    ]


def _drain_time(plan: Plan) -> int:
    return max(1, math.ceil(plan.drain_timeout))
