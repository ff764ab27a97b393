"""`adsum watch`."""

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
from adsum.config.serve import ClientConfig


@click.command(epilog="Examples: adsum watch; adsum watch orders users --json | jq -r .cause; adsum watch --changes")
@click.argument("services", metavar="[SERVICE]...", nargs=-1, type=ServiceType())
@click.option("--changes", is_flag=True, help="Only what changes from now on, not how things stand at first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def watch(loaded: Settings, services: tuple[str, ...], changes: bool, as_json: bool) -> None:
    """Print every change as it happens: when, which instance, from what to what, why and by whom.

    Without names every service is watched. First comes how things stand. If the registry goes away, this says so,
    waits for it, and goes on where it was.

    --json lines have: at, service, id, address, port, status ("gone" if it left), previous_status ("" if it is new or if this is
    how things stand at first), cause, actor, reason, revision.
    """

    async def work(client: Client) -> None:
        async with aclosing(follow_changes(client.api, services, Random(), output.print_message)) as seen:
            async for each in seen:
                if changes and each.initial:
                    continue
                if as_json:
                    output.print_json(each.change)
                else:
                    output.print_line(*_parts(each))

    run_with_client(loaded, work)


def _parts(seen: ObservedChange) -> tuple[str | output.StatusText, ...]:
    """A change for people: short enough for a terminal of 80 columns unless names or reasons are long."""
    told = seen.change
    became = told.status if seen.initial or not told.previous_status else f"{told.previous_status} → {told.status}"
    why = output.format_cause(told.cause, told.actor, told.reason)
    return (
        f"{output.time_of_day(told.at)}  {told.service}/{told.id}  ",
        output.StatusText(became, told.status),
        f"  {why}",
    )
