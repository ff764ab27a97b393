"""One running Envoy of a gateway: starts it and waits until it serves."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.cache_files import write_private_file
from adsum.core.addresses import format_host_port
from adsum.envoy.admin import AdminClient, AdminUnavailable
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.access_log import AccessLog
from adsum.envoy.process.bootstrap import SECRETS_FILE, bootstrap, certificate_secret, static_bootstrap
from adsum.envoy.process.envoy_log import ENVOY_LEVELS, ENVOY_LOG_FORMAT
from adsum.envoy.process.envoy_process import EnvoyProcess
from adsum.envoy.registry_health.last_good_config import StaticResources
from adsum.envoy.registry_health.xds_health import unreachable_reason

POLL_INTERVAL: Final = 0.05
"""Seconds between two polls of an Envoy that starts or ends."""
WAIT_REPORT_INTERVAL: Final = 3.0
"""Seconds between two checks of why an Envoy is not ready yet. Each new reason is logged once."""
SHUTDOWN_MARGIN: Final = 1.0
"""Seconds that a replaced Envoy runs beyond the drain time of its requests."""

_log = logging.getLogger("adsum.envoy")


@dataclass(frozen=True, slots=True)
class EnvoyInstance:
    """A running Envoy and the plan that it follows."""

    plan: GatewayPlan
    folder: Path
    process: EnvoyProcess
    admin: AdminClient
    secrets: GatewaySecrets
    """The certificates with which it was started."""
    uses_last_good_config: bool
    """True if it serves the last good configuration, because no registry answered at its start."""

    @classmethod
    def start(
        cls,
        plan: GatewayPlan,
        secrets: GatewaySecrets,
        folder: Path,
        hot_restart_arguments: Sequence[str],
        last_good: StaticResources | None,
        access_log: AccessLog,
        responsive_nodes: Collection[SocketAddress],
    ) -> EnvoyInstance:
        """Starts an Envoy in `folder`, which it has to itself, with the certificates `secrets`.

        `hot_restart_arguments` come from `HotRestart`. `last_good` is the configuration to serve without a registry;
        None means that the registry provides it. `responsive_nodes` are the registry nodes to try first.
        """
        admin, path = folder / "admin.sock", folder / "bootstrap.json"
        if last_good is None:
            config = bootstrap(plan, admin, responsive_nodes)
        else:
            config = static_bootstrap(plan, admin, last_good)
        write_private_file(path, json.dumps(config).encode())
        write_private_file(folder / SECRETS_FILE, json.dumps(certificate_secret(folder)).encode())
        secrets.install(folder)
        process = EnvoyProcess(_argv(plan, path, hot_restart_arguments), folder, access_log)
        return cls(plan, folder, process, AdminClient(admin), secrets, last_good is not None)

    @property
    def exits_within(self) -> float:
        """Seconds within which this Envoy exits once another one has taken over."""
        return _drain_time(self.plan) + SHUTDOWN_MARGIN

    async def wait_until_serving(self, *, strict: bool) -> None:
        """Returns once the Envoy accepts requests. That may take as long as the registry is away.

        Raises `CannotServe` if it has exited and, with `strict`, if it can't open a listener.
        """
        waited, reported, reason = 0.0, 0.0, ""
        while not await self._serves(strict=strict):
            if not self.process.running:
                raise CannotServe(f"Envoy exited before it was ready: {self.process.exit_summary()}")
            await asyncio.sleep(POLL_INTERVAL)
            waited += POLL_INTERVAL
            if waited - reported >= WAIT_REPORT_INTERVAL:
                reported, previous = waited, reason
                reason = await self._waiting_reason()
                if reason != previous:  # Envoy may start slowly, and then the registry may be away.
                    _log.warning("the gateway does not accept requests yet: %s", reason)

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

    async def _waiting_reason(self) -> str:
        nodes = ", ".join(format_host_port(host, port) for host, port in self.plan.registry_nodes)
        if self.process.refusal:
            return f"the registry at {nodes} rejects this gateway: {self.process.refusal}"
        try:
            if await self.admin.is_registry_connected():
                return f"the registry at {nodes} is connected, but has not sent a configuration"
        except AdminUnavailable as error:
            return str(error)
        reason = await unreachable_reason(self.plan.registry_nodes, self.secrets.identity)
        if not reason:
            return f"a registry answers at {nodes}, but has not sent a configuration"
        remedy = "is `adsum serve` running there? --xds names its address"
        if not self.secrets.identity:
            remedy += "; `adsum join` joins a registry on another host"
        return f"no registry answers at {nodes} ({remedy}): {reason}"


def _argv(plan: GatewayPlan, bootstrap: Path, hot_restart_arguments: Sequence[str]) -> list[str | Path]:
    """Returns Envoy's command line."""
    drain = _drain_time(plan)
    return [
        plan.binary.path,
        *("-c", bootstrap),
        *hot_restart_arguments,
        *("--concurrency", str(plan.concurrency)),
        *("--drain-time-s", str(drain)),
        *("--parent-shutdown-time-s", str(drain + int(SHUTDOWN_MARGIN))),
        # Every response closes its connection from the start of the drain. By default, the share grows over time.
        *("--drain-strategy", "immediate"),
        *("-l", ENVOY_LEVELS[plan.log_level]),
        *("--log-format", ENVOY_LOG_FORMAT),
    ]


def _drain_time(plan: GatewayPlan) -> int:
    return max(1, math.ceil(plan.drain_timeout))
