"""`adsum gateway`."""

from __future__ import annotations

import asyncio
from random import Random

import click

from adsum.cli import output
from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.serve import ClientConfig, GatewayConfig
from adsum.core.errors import Invalid
from adsum.envoy.plan import GatewayPlan


@click.command(
    epilog="Examples: adsum gateway; "
    "adsum gateway --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem --url http://reg-1:23786,http://reg-2:23786"
)
@with_settings(ClientConfig, GatewayConfig, exclude=("actor", "cache_max_age"))
def gateway(loaded: Settings) -> int:
    """Take requests at one address and pass each on to a live instance of the service that it is for.

    Runs an Envoy and keeps it up; the registry tells it, without a restart, of every instance that comes, goes or fails
    and of every route (`adsum route`). Without a route, /orders/… and the host orders.localhost lead to the service
    orders: curl http://127.0.0.1:8080/orders/

    It goes on serving while every registry node is down. On SIGTERM and Ctrl-C it accepts nothing more and finishes
    what runs (--drain-timeout); a second signal cuts that off. On SIGHUP it reads its settings again, and a new Envoy
    takes over without a dropped request (what takes longer than --drain-timeout is cut off); if that can't serve, the
    one that does goes on, and the log says why.

    Access logs and the line that says that it is ready go to standard output, everything else to standard error.
    --monitor has /metrics for Prometheus, /healthz and /readyz (503 while it finishes what runs; its
    body says when there was no contact with the registry for 7.5 s).
    """
    from adsum.envoy.gateway import Gateway
    from adsum.envoy.runner import GatewayRunner
    from adsum.telemetry import Logs

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

    config, client = loaded.get(GatewayConfig), loaded.get(ClientConfig)
    try:
        return plan.make_plan(config, plan.registry_addresses(config.xds, client.url), client.zone)
    except Invalid as error:
        raise loaded.config_error(error, {"tls_certificate": "tls_cert"}) from None
