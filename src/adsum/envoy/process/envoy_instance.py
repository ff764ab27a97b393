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

from adsum.envoy.admin import AdminClient, AdminUnavailable
from adsum.envoy.certificates import certificate
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.access_log import AccessLog
from adsum.envoy.process.bootstrap import SECRETS_FILE, bootstrap, certificate_secret, static_bootstrap
from adsum.envoy.process.envoy_log import ENVOY_LEVELS, ENVOY_LOG_FORMAT
from adsum.envoy.process.envoy_process import EnvoyProcess
from adsum.envoy.registry_health.last_good_config import StaticResources
from adsum.envoy.registry_health.xds_health import unreachable_reason

POLL_INTERVAL: Final = 0.05
"""Seconds between two questions to an Envoy that comes up or goes."""
WAIT_REPORT_INTERVAL: Final = 3.0
"""Seconds between two looks at what it waits for; each new reason is said."""
SHUTDOWN_MARGIN: Final = 1.0
"""Seconds by which one that was replaced outlives the requests that it may still finish."""

_log = logging.getLogger("adsum.envoy")


@dataclass(frozen=True, slots=True)
class EnvoyInstance:
    """A running Envoy and the plan that it follows."""

    plan: GatewayPlan
    folder: Path
    process: EnvoyProcess
    admin: AdminClient
    uses_last_good_config: bool
    """Whether it serves what the one before was told, for want of a registry."""

    @classmethod
    def start(
        cls,
        plan: GatewayPlan,
        pair: bytes,
        folder: Path,
        hot_restart_arguments: Sequence[str],
        last_good: StaticResources | None,
        access_log: AccessLog,
        responsive_nodes: Collection[SocketAddress],
    ) -> EnvoyInstance:
        """Start it in a folder of its own, to show `pair`.

        `follows` are a lineage's arguments, `told` is what to serve without a registry, `responsive_nodes` are the registry
        nodes to try first.
        """
        admin, path = folder / "admin.sock", folder / "bootstrap.json"
        path.write_text(
            json.dumps(
                bootstrap(plan, admin, responsive_nodes)
                if last_good is None
                else static_bootstrap(plan, admin, last_good)
            )
        )
        (folder / SECRETS_FILE).write_text(json.dumps(certificate_secret(folder)))
        certificate.install_pair(pair, folder)
        process = EnvoyProcess(_argv(plan, path, hot_restart_arguments), folder, access_log)
        return cls(plan, folder, process, AdminClient(admin), last_good is not None)

    @property
    def exits_within(self) -> float:
        """Seconds after which it has ended once another one has taken over."""
        return _drain_time(self.plan) + SHUTDOWN_MARGIN

    async def wait_until_serving(self, *, strict: bool) -> None:
        """Return once it takes requests; that may take as long as the registry is away.

        Raises `CannotServe` if it has ended, and, if `strict`, when it can't listen somewhere.
        """
        waited, looked, why = 0.0, 0.0, ""
        while not await self._serves(strict=strict):
            if not self.process.running:
                raise CannotServe(f"Envoy ended at once: {self.process.exit_summary()}")
            await asyncio.sleep(POLL_INTERVAL)
            waited += POLL_INTERVAL
            if waited - looked >= WAIT_REPORT_INTERVAL:
                looked, before = waited, why
                why = await self._what_for()
                if why != before:  # A slow start of Envoy comes first, a registry that is away after it.
                    _log.warning("it takes no requests yet: %s", why)

    async def _serves(self, *, strict: bool) -> bool:
        try:
            listeners = await self.admin.listeners()
            if listeners.errors and strict:
                raise CannotServe(f"Envoy can't listen: {listeners.errors[0]}")
            up = listeners.listening.issuperset(self.plan.listen_addresses) or bool(
                listeners.errors and listeners.listening
            )
            return up and await self.admin.is_live()
        except AdminUnavailable:
            return False

    async def _what_for(self) -> str:
        places = ", ".join(f"{host}:{port}" for host, port in self.plan.registry_nodes)
        if self.process.refusal:
            return f"the registry at {places} refuses this gateway: {self.process.refusal}"
        try:
            if await self.admin.is_registry_connected():
                return f"the registry at {places} has not told it anything"
        except AdminUnavailable as error:
            return str(error)
        why = await unreachable_reason(self.plan.registry_nodes)
        if not why:
            return f"a registry answers at {places}, and has not told it anything"
        return f"no registry answers at {places} (is `adsum serve` running there? --xds says where to look): {why}"


def _argv(plan: GatewayPlan, bootstrap: Path, follows: Sequence[str]) -> list[str | Path]:
    drain = _drain_time(plan)
    return [
        plan.binary.path,
        *("-c", bootstrap),
        *follows,
        *("--concurrency", str(plan.concurrency)),
        *("--drain-time-s", str(drain)),
        *("--parent-shutdown-time-s", str(drain + int(SHUTDOWN_MARGIN))),
        # Every answer ends its connection from the first second on; by default more and more do.
        *("--drain-strategy", "immediate"),
        *("-l", ENVOY_LEVELS[plan.log_level]),
        *("--log-format", ENVOY_LOG_FORMAT),
    ]


def _drain_time(plan: GatewayPlan) -> int:
    return max(1, math.ceil(plan.drain_timeout))
