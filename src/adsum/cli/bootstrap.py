"""`adsum grpc-bootstrap`."""

from __future__ import annotations

import click

from adsum.cli import output
from adsum.cli.flags import settings
from adsum.cli.loading import ConfigError, Settings
from adsum.config import ClientConfig
from adsum.core.errors import Invalid


@click.command(
    "grpc-bootstrap", epilog="Example: adsum grpc-bootstrap > xds.json && GRPC_XDS_BOOTSTRAP=xds.json ./my-go-program"
)
@click.option(
    "--xds",
    default="",
    metavar="HOST:PORT",
    help="Where registry nodes talk to gRPC clients (default: port "
    "23787 of the hosts that --url names); several are separated by commas.",
)
@settings(ClientConfig)
def grpc_bootstrap(loaded: Settings, xds: str) -> None:
    """Print what gRPC clients of any language need to call services as `xds:///SERVICE`, without a proxy.

    They read it from the file that GRPC_XDS_BOOTSTRAP names, before their first channel. Python programs don't need it:
    `adsum.integrations.grpc.channel("orders")` does it all.
    """
    from adsum.integrations.grpc import bootstrap

    try:
        found = bootstrap(xds, loaded.of(ClientConfig).url)
    except Invalid as error:
        raise ConfigError(f"--{error}") from None
    output.json(found)
