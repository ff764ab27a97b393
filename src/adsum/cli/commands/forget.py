"""The command `adsum forget`."""

from __future__ import annotations

import click

from adsum.cli import output
from adsum.cli.arguments import ServiceType, json_option, reason_option
from adsum.cli.client import run_with_client
from adsum.cli.settings.flags import UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.client import ClientConfig


@click.command(epilog="Example: adsum forget orders --reason 'renamed to order-service'")
@click.argument("service", type=ServiceType())
@reason_option("Reason of the removal")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def forget(loaded: Settings, service: str, reason: str, as_json: bool) -> None:
    """Remove a service without instances from the lists.

    The service disappears from `adsum ls`, status, metrics and gateways, on every node; its history stays. A service
    that stays empty is forgotten automatically after a day (`adsum serve --forget-after`). A service with instances is
    refused; remove them with `adsum deregister` first.

    --json prints the response of DELETE /api/v1/services/SERVICE.
    """
    result = run_with_client(loaded, lambda client: client.api.forget(service, reason=reason))
    if as_json:
        output.print_json(result)
    else:
        output.print_message(f"{service} is forgotten")
