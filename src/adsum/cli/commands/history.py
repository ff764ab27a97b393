"""The command `adsum history`."""

from __future__ import annotations

import click

from adsum import wire
from adsum.cli import output
from adsum.cli.arguments import InstanceRef, ServiceType, json_option, unknown_service
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.client import ClientConfig


@click.command(epilog="Examples: adsum history orders; adsum history orders/web1 --limit 5 --json")
@click.argument("key", metavar="SERVICE[/ID]", type=ServiceType(with_id=True))
@click.option(
    "--limit",
    type=click.IntRange(1, wire.MAX_CHANGES_PER_RESPONSE),
    default=20,
    help="Most changes to print.  [default: 20]",
)
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def history(loaded: Settings, key: InstanceRef, limit: int, as_json: bool) -> None:
    """Show why instances were added, changed and removed, the newest change first.

    Start here if an instance is missing. Every change has a recorded cause and actor, such as a lease that expired, a
    check that failed, a person, or a program that exited with code 3. For routes see `adsum route history`.

    --json prints the response of GET /api/v1/changes.
    """
    history = run_with_client(loaded, lambda client: client.api.changes(key.service, key.id, limit))
    if as_json:
        output.print_json(history)
    elif history.changes:
        output.print_table(("TIME", "AGE", "INSTANCE", "STATUS", "CAUSE"), [_row(change) for change in history.changes])
    if not history.changes:
        services = run_with_client(loaded, lambda client: client.api.services()).services
        names = [service.name for service in services]
        problem = f"no change of {key} is recorded"
        if key.service not in names:
            problem = f"{problem}: {unknown_service(key.service, names)}"
        raise CommandFailed(ExitCode.NOT_FOUND, problem)


def _row(change: wire.ChangeView) -> tuple[str, ...]:
    return (
        output.time_of_day(change.at),
        output.ago(change.at),
        f"{change.service}/{change.id}" if change.id else change.service,
        change.status or "gone",
        output.format_cause(change.cause, change.actor, change.reason, change.peer, change.claimed),
    )
