"""The command `adsum serve`."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import click

from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.client import ClientConfig
from adsum.config.gateway import GatewayConfig
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from adsum.node_security.security_folder import FOLDER_NAME, GATEWAY_FOLDER
from adsum.settings import OFF, ON

if TYPE_CHECKING:
    from adsum.envoy.gateway import Gateway
    from adsum.envoy.plan import GatewayPlan


@click.command(
    epilog="Examples: adsum serve --gateway; "
    "adsum serve --secure --listen 0.0.0.0:23786 --xds 0.0.0.0:23787 --store sqlite:////var/lib/adsum/adsum.db"
)
@with_settings(ServeConfig)
def serve(loaded: Settings) -> None:
    """Run a registry node until SIGTERM or Ctrl-C.

    Services register with the node. It checks their health and sends every change to its watchers. Every change that
    it acknowledges is in the store. If the node is killed, traffic goes on, because clients keep their last view.

    By default the node listens on loopback, and every client that reaches it may register and deregister. On a network
    it needs --secure: then it serves TLS, every caller needs a token, and the node makes its certificates and an admin
    token at its first start. Commands on its host find that token by themselves. Other hosts join with the line that
    `adsum token invite` prints.

    Logs go to standard error, the listen address to standard output.

    On SIGHUP the node reads its settings again. Those that it can change while it runs are marked below; the log names
    the others.

    With --gateway the node also runs a gateway, as `adsum gateway` does; both stop together. One such process is enough
    for one host.
    """
    from adsum import node_process, stores

    # Without it, grpc writes a line to standard error for each failed TLS handshake.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    config = loaded.get(ServeConfig)
    try:
        stores.store(config.store)
        if config.gateway != OFF:
            _plan(loaded, config.xds)  # Fails before the node starts if a setting is invalid.
        make_gateway = None if config.gateway == OFF else lambda xds: _make_gateway(loaded, xds)
        node_process.serve(config, make_gateway, lambda: loaded.reload().get(ServeConfig))
    except Invalid as error:
        raise loaded.config_error(error) from None


def _make_gateway(loaded: Settings, xds: str) -> Gateway:
    from adsum.envoy.gateway import Gateway

    return Gateway(_plan(loaded, xds), lambda: _plan(loaded.reload(), xds), Random())


def _plan(loaded: Settings, xds: str) -> GatewayPlan:
    """Returns the plan of the gateway that the file describes; it gets its configuration from the node at `xds`."""
    from adsum.envoy import plan
    from adsum.envoy.registry_access import node_access

    serve, table = loaded.get(ServeConfig), loaded.from_file(GatewayConfig)
    config = replace(table.get(GatewayConfig), log_level=serve.log_level)
    if serve.gateway != ON:
        config = replace(config, listen=(serve.gateway,))
    try:
        node = plan.connect_address(xds)
        folder = serve.data_folder(serve.store) / FOLDER_NAME / GATEWAY_FOLDER if serve.serves_tls else None
        nodes, credentials = node_access(config, node, folder, is_external=bool(serve.tls_cert))
        return plan.make_plan(config, nodes, loaded.from_file(ClientConfig).get(ClientConfig).zone, credentials)
    except Invalid as error:
        raise table.config_error(error, {"tls_certificate": "tls_cert"}) from None
