"""`adsum grpc-bootstrap`."""

from __future__ import annotations

import click

from adsum.cli import output
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import ConfigError, Settings
from adsum.config.serve import ClientConfig
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
@click.option(
    "--joined",
    is_flag=True,
    help="Put all nodes into one entry, so that a client whose node dies follows another one at once. C++, Python and "
    "Node.js take that; Go and Java don't. Needs IP addresses of one family.",
)
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def grpc_bootstrap(loaded: Settings, xds: str, joined: bool) -> None:
    """Print the bootstrap with which gRPC clients of any language call services as `xds:///SERVICE`, without a proxy.

    They read it from the file that GRPC_XDS_BOOTSTRAP names, before their first channel. A client follows the first of
    several nodes that answers; Node.js only the first one. A host name with the addresses of all nodes is better: a
    client tries all of them. Python programs don't need a bootstrap: `adsum.integrations.grpc.channel("orders")` makes
    it.
    """
    from adsum.integrations.grpc_bootstrap import grpc_bootstrap

    try:
        found = grpc_bootstrap(xds, loaded.get(ClientConfig).url, joined=joined)
    except Invalid as error:
        raise ConfigError(f"--{error}") from None
    if joined and len(found["xds_servers"]) > 1:
        raise ConfigError("--joined needs IP addresses of one family as nodes: give them by --xds, or leave it out")
    output.print_json(found)
