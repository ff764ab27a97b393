"""The command `adsum grpc-bootstrap`."""

from __future__ import annotations

import click

from adsum.cli import output
from adsum.cli.settings.flags import CREDENTIALS, UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import ConfigError, Settings
from adsum.config.client import ClientConfig
from adsum.core.errors import Invalid


@click.command(
    "grpc-bootstrap", epilog="Example: adsum grpc-bootstrap > xds.json && GRPC_XDS_BOOTSTRAP=xds.json ./my-go-program"
)
@click.option(
    "--xds",
    default="",
    metavar="HOST:PORT",
    help="xDS address of the registry; separate several nodes by commas (default: port 23787 of the hosts in --url).",
)
@click.option(
    "--joined",
    is_flag=True,
    help="Put all nodes into one entry, so that a client whose node dies switches to another one at once. C++, Python "
    "and Node.js support that; Go and Java don't. Needs IP addresses of one family.",
)
@with_settings(ClientConfig, exclude=(*UNUSED_BY_READS, *CREDENTIALS))
def grpc_bootstrap(loaded: Settings, xds: str, joined: bool) -> None:
    """Print the bootstrap file with which gRPC clients call services as `xds:///SERVICE`, without a proxy.

    Clients in every language read it from the file named by GRPC_XDS_BOOTSTRAP, before they open their first channel.
    If there are several nodes, a client uses the first that answers; Node.js only tries the first one. A host name that
    resolves to all nodes is better, because a client tries all of its addresses. Python programs don't need this
    command: `adsum.integrations.grpc.channel("orders")` makes the bootstrap itself.
    """
    from adsum.integrations.grpc_bootstrap import grpc_bootstrap

    try:
        found = grpc_bootstrap(xds, loaded.get(ClientConfig).url, joined=joined)
    except Invalid as error:
        raise ConfigError(f"--{error}") from None
    if joined and len(found["xds_servers"]) > 1:
        raise ConfigError(
            "--joined: needs nodes with IP addresses of one family; name them with --xds, or omit --joined"
        )
    output.print_json(found)
