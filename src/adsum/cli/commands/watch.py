"""The command `adsum watch`."""

from __future__ import annotations

from contextlib import aclosing
from random import Random

import click

from adsum.cli import output
from adsum.cli.arguments import ServiceType
from adsum.cli.change_tracker import ObservedChange, follow_changes
from adsum.cli.client import run_with_client
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.client import ClientConfig


@click.command(epilog="Examples: adsum watch; adsum watch orders users --json | jq -r .cause; adsum watch --changes")
@click.argument("services", metavar="[SERVICE]...", nargs=-1, type=ServiceType())
@click.option("--changes", is_flag=True, help="Print only changes from now on, without the current state.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def watch(loaded: Settings, services: tuple[str, ...], changes: bool, as_json: bool) -> None:
    """Print every change as it happens: time, instance, old and new status, cause, actor and reason.

    Without SERVICE, all services are watched. The current state is printed first. If the connection to the registry is
    lost, the command reports it, reconnects, and continues where it stopped.

    The fields of --json lines: at, service, id, address, port, status ("gone" if the instance left), previous_status
    ("" if the instance is new or the line shows the current state), cause, actor, reason, revision.
    """

    async def work(client: Client) -> None:
        async with aclosing(follow_changes(client.api, services, Random(), output.print_message)) as observed_changes:
            async for observed in observed_changes:
                if changes and observed.initial:
                    continue
                if as_json:
                    output.print_json(observed.change)
                else:
                    output.print_line(*_parts(observed))

    run_with_client(loaded, work)


def _parts(observed: ObservedChange) -> tuple[str | output.StatusText, ...]:
    """Returns a change as a line for people. It fits into 80 columns unless names or reasons are long."""
    change, status = observed.change, observed.change.status
    if change.previous_status and not observed.initial:
        status = f"{change.previous_status} → {change.status}"
    return (
        f"{output.time_of_day(change.at)}  {change.service}/{change.id}  ",
        output.StatusText(status, change.status),
        f"  {output.format_cause(change.cause, change.actor, change.reason, claimed=change.claimed)}",
    )
