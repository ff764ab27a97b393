"""`adsum watch`."""

from __future__ import annotations

from contextlib import aclosing
from random import Random

import click

from adsum.cli import output
from adsum.cli.arguments import ServiceType
from adsum.cli.change_tracker import Seen, follow
from adsum.cli.client import ask
from adsum.cli.settings.flags import UNUSED_BY_READS, settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.serve import ClientConfig


@click.command(epilog="Examples: adsum watch; adsum watch orders users --json | jq -r .cause; adsum watch --changes")
@click.argument("services", metavar="[SERVICE]...", nargs=-1, type=ServiceType())
@click.option("--changes", is_flag=True, help="Only what changes from now on, not how things stand at first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@settings(ClientConfig, but=UNUSED_BY_READS)
def watch(loaded: Settings, services: tuple[str, ...], changes: bool, as_json: bool) -> None:
    """Print every change as it happens: when, which instance, from what to what, why and by whom.

    Without names every service is watched. First comes how things stand. If the registry goes away, this says so,
    waits for it, and goes on where it was.

    --json lines have: at, service, id, address, port, status ("gone" if it left), was ("" if it is new or if this is
    how things stand at first), cause, actor, reason, revision.
    """

    async def work(client: Client) -> None:
        async with aclosing(follow(client.api, services, Random(), output.say)) as seen:
            async for each in seen:
                if changes and each.first:
                    continue
                if as_json:
                    output.json(each.told)
                else:
                    output.line(*_parts(each))

    ask(loaded, work)


def _parts(seen: Seen) -> tuple[str | output.Coloured, ...]:
    """A change for people: short enough for a terminal of 80 columns unless names or reasons are long."""
    told = seen.told
    became = told.status if seen.first or not told.was else f"{told.was} → {told.status}"
    why = output.why(told.cause, told.actor, told.reason)
    return (
        f"{output.clock(told.at)}  {told.service}/{told.id}  ",
        output.Coloured(became, told.status),
        f"  {why}",
    )
