"""The command `adsum whoami`."""

from __future__ import annotations

import time

import click

from adsum.cli import output
from adsum.cli.arguments import json_option
from adsum.cli.client import run_with_client
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.native.access_api import AccessApi
from adsum.config.client import ClientConfig


@click.command(epilog="Examples: adsum whoami; adsum whoami --token-file ci-token --json")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def whoami(loaded: Settings, as_json: bool) -> None:
    """Show who the registry takes you for, and what you may do.

    METHOD is how that was proved: token, certificate, jwt, or none for callers that prove nothing. The scopes are
    RIGHT:PATTERN, where each right includes the ones before it: read, write, operate, admin.

    --json prints the response of GET /api/v1/caller.
    """
    caller = run_with_client(loaded, lambda client: AccessApi(client.api).caller())
    if as_json:
        output.print_json(caller)
        return
    expires = output.until(caller.expires, time.time()) if caller.expires is not None else "never"
    rows = [
        ("name", caller.name),
        ("method", caller.method),
        ("scopes", " ".join(caller.scopes) or "none"),
        ("address", caller.address),
        ("expires", expires),
        ("registry", loaded.get(ClientConfig).url),
    ]
    output.print_table(("", ""), rows)
