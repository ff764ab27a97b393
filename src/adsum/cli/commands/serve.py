"""`adsum serve`."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import click

from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.serve import ClientConfig, GatewayConfig, ServeConfig
from adsum.core.errors import Invalid
from adsum.settings import OFF, ON

if TYPE_CHECKING:
    from adsum.envoy.gateway import Gateway
    from adsum.envoy.plan import GatewayPlan


@click.command(
    epilog="Examples: adsum serve --gateway; "
    "adsum serve --listen 0.0.0.0:23786 --store sqlite:////var/lib/adsum/adsum.db"
)
@with_settings(ServeConfig)
def serve(loaded: Settings) -> None:
    """Run a registry node until SIGTERM or Ctrl-C.

    Services register here, the node checks their health, and tells everyone who watches of every change. What it
    acknowledges is on disk; killing it stops no traffic, because clients go on with what they know.

    It listens on this host only unless told otherwise: whoever reaches it may register and deregister. Logs go to
    standard error, the address to standard output.

    On SIGHUP it reads its settings again. What can change while it runs is marked below; the log names the rest.

    With --gateway it also runs a gateway, as `adsum gateway` does, and ends with it: enough for one host.
    """
    from adsum import daemon, stores

    config = loaded.get(ServeConfig)
    try:
        stores.store(config.store)
        if config.gateway != OFF:
            _plan(loaded, config.xds)  # What is wrong is said before anything runs.
        beside = None if config.gateway == OFF else lambda place: _gateway(loaded, place)
        daemon.serve(config, beside, lambda: loaded.reload().get(ServeConfig))
    except Invalid as error:
        raise loaded.config_error(error) from None


def _gateway(loaded: Settings, xds: str) -> Gateway:
    from adsum.envoy.gateway import Gateway

    return Gateway(_plan(loaded, xds), lambda: _plan(loaded.reload(), xds), Random())


def _plan(loaded: Settings, xds: str) -> GatewayPlan:
    """The gateway that the file describes, told by the node that is told here."""
    from adsum.envoy import plan

    serve, table = loaded.get(ServeConfig), loaded.from_file(GatewayConfig)
    config = replace(table.get(GatewayConfig), log_level=serve.log_level)
    if serve.gateway != ON:
        config = replace(config, listen=(serve.gateway,))
    try:
        return plan.make_plan(
            config, [plan.connect_address(xds)], loaded.from_file(ClientConfig).get(ClientConfig).zone
        )
    except Invalid as error:
        raise table.config_error(error, {"tls_certificate": "tls_cert"}) from None
