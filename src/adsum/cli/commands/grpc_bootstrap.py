"""The command `adsum grpc-bootstrap`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from adsum.cli import output
from adsum.cli.settings.flags import CREDENTIALS, UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import ConfigError, Settings
from adsum.client.credentials.xds import XdsCredentials
from adsum.config.client import ClientConfig
from adsum.core.errors import Invalid

PLAIN_TEXT: Final = (
    "clients will speak plain text with xDS, which a registry that requires tokens refuses: `adsum join` on this host "
    "gets the certificate that they need; then print the bootstrap again"
)


@click.command(
    "grpc-bootstrap", epilog="Example: adsum grpc-bootstrap > xds.json && GRPC_XDS_BOOTSTRAP=xds.json ./my-go-program"
)
@click.option(
    "--xds",
    default="",
    metavar="HOST:PORT",
    help="xDS address of the registry; separate several nodes by commas (default: those of the registry that this host "
    "has joined, else port 23787 of the hosts in --url).",
)
@click.option(
    "--joined",
    is_flag=True,
    help="Put all nodes into one entry, so that a client whose node dies switches to another one at once. C++, Python "
    "and Node.js support that; Go and Java don't. Needs IP addresses of one family, and plain text.",
)
@click.option(
    "--xds-authority",
    default="",
    metavar="FILE",
    help="Speak TLS, and trust these authorities: a PEM file (default: what `adsum join` has got on this host).",
)
@click.option("--xds-cert", default="", metavar="FILE", help="Certificate that clients present: a PEM file.")
@click.option("--xds-key", default="", metavar="FILE", help="Private key of that certificate: a PEM file.")
@with_settings(ClientConfig, exclude=(*UNUSED_BY_READS, *CREDENTIALS))
def grpc_bootstrap(loaded: Settings, xds: str, joined: bool, xds_authority: str, xds_cert: str, xds_key: str) -> None:
    """Print the bootstrap file with which gRPC clients call services as `xds:///SERVICE`, without a proxy.

    Clients in every language read it from the file named by GRPC_XDS_BOOTSTRAP, before they open their first channel.
    If there are several nodes, a client uses the first that answers; Node.js only tries the first one. A host name that
    resolves to all nodes is better, because a client tries all of its addresses. Python programs don't need this
    command: `adsum.integrations.grpc.channel("orders")` makes the bootstrap itself.

    On a host that has joined a registry (`adsum join`) clients speak TLS, and read this host's certificate from its
    files, which they reread. C++, Python and Go (1.61 and later) support that. Java ignores the files, and Node.js
    knows no TLS here: docs/grpc.md shows a way for them.
    """
    from adsum.integrations.grpc_bootstrap import grpc_bootstrap

    try:
        credentials = _own_credentials(xds_authority, xds_cert, xds_key)
        found = grpc_bootstrap(xds, loaded.get(ClientConfig).url, joined=joined, credentials=credentials)
    except Invalid as error:
        raise ConfigError(f"--{error}" if error.field.startswith("xds") else str(error)) from None
    if joined and len(found["xds_servers"]) > 1:
        raise ConfigError(
            "--joined: needs nodes with IP addresses of one family, without TLS; name them with --xds, or omit --joined"
        )
    output.print_json(found)
    is_plain = any(server["channel_creds"][0]["type"] == "insecure" for server in found["xds_servers"])
    if is_plain and "https://" in loaded.get(ClientConfig).url:
        output.print_message(PLAIN_TEXT)


def _own_credentials(authority: str, certificate: str, key: str) -> XdsCredentials | None:
    """Returns the files that the options name; None if they name none. Raises `Invalid`."""
    if bool(certificate) is not bool(key):
        raise Invalid("xds-cert" if key else "xds-key", "must be given together with the other one")
    if not authority:
        if certificate:
            raise Invalid("xds-authority", "must be given together with --xds-cert")
        return None
    return XdsCredentials(
        Path(authority).absolute(),
        Path(certificate).absolute() if certificate else None,
        Path(key).absolute() if key else None,
    )
