"""`adsum serve`."""

from __future__ import annotations

import click

from adsum.cli.flags import settings
from adsum.cli.loading import Settings
from adsum.config import ServeConfig
from adsum.core.errors import Invalid


@click.command(epilog="Example: adsum serve --listen 0.0.0.0:23786 --store sqlite:////var/lib/adsum/adsum.db")
@settings(ServeConfig)
def serve(loaded: Settings) -> None:
    """Run a registry node until SIGTERM or Ctrl-C.

    Services register here, the node checks their health, and tells everyone who watches of every change. What it
    acknowledges is on disk; killing it stops no traffic, because clients go on with what they know.

    It listens on this host only unless told otherwise: whoever reaches it may register and deregister. Logs go to
    standard error, the address to standard output.
    """
    from adsum import daemon, stores

    config = loaded.of(ServeConfig)
    try:
        stores.store(config.store)
        daemon.serve(config)
    except Invalid as error:
        raise loaded.blame(error) from None
