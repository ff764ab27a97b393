"""The command `adsum gateway`."""

from __future__ import annotations

import asyncio
import os
from random import Random

import click

from adsum.cli import output
from adsum.cli.settings.flags import CREDENTIALS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.client import ClientConfig
from adsum.config.gateway import GatewayConfig
from adsum.core.errors import Invalid
from adsum.envoy.plan import GatewayPlan


@click.command(
    epilog="Examples: adsum gateway; adsum gateway --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem"
)
@with_settings(ClientConfig, GatewayConfig, exclude=("actor", "cache_max_age", *CREDENTIALS))
def gateway(loaded: Settings) -> int:
    """Accept requests at one address and forward each to a live instance of the service that it is for.

    Runs an Envoy and keeps it running. The registry sends it every change of instances and routes
    (`adsum route`), without a restart. Without any route, /orders/… and the host orders.localhost lead to the service
    orders: curl http://127.0.0.1:8080/orders/

    On a host that has joined a registry (`adsum join`) it follows that one over TLS, with no further setting. With your
    own certificates, name them with --xds-cert, --xds-key and --xds-authority.

    The gateway keeps serving while every registry node is down. On SIGTERM or Ctrl-C it accepts no more connections
    and lets running requests finish (--drain-timeout); a second signal cuts them off. On SIGHUP it reads its settings
    again, and a new Envoy takes over without a dropped request; requests that take longer than --drain-timeout are cut
    off. If the new Envoy can't serve, the old one continues and the log gives the reason.

    Access logs and the line that reports the listen addresses go to standard output, all other logs to standard error.
    --monitor serves /metrics for Prometheus, /healthz and /readyz. /readyz is 503 while the gateway drains; its body
    reports when no registry has been heard from for 7.5 s, and why.
    """
    from adsum.envoy.gateway import Gateway
    from adsum.envoy.runner import GatewayRunner
    from adsum.telemetry import Logs

    # Without it, grpc writes a line to standard error for each failed TLS handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    plan, config = _plan(loaded), loaded.get(GatewayConfig)

    async def go() -> int:
        gateway = Gateway(plan, lambda: _plan(loaded.reload()), Random())
        return await GatewayRunner(
            gateway, lambda: output.print_line(f"adsum gateway listens on {' '.join(plan.urls)}")
        ).run()

    logs = Logs(config.log_level, config.log_format)
    try:
        with output.non_blocking():
            return asyncio.run(go())
    finally:
        logs.close()


def _plan(loaded: Settings) -> GatewayPlan:
    from adsum.envoy import plan
    from adsum.envoy.registry_access import registry_access

    config, client = loaded.get(GatewayConfig), loaded.get(ClientConfig)
    try:
        nodes, credentials = registry_access(config, client.url)
        return plan.make_plan(config, nodes, client.zone, credentials)
    except Invalid as error:
        raise loaded.config_error(error, {"tls_certificate": "tls_cert"}) from None
