"""The command `adsum route history`."""

from __future__ import annotations

from typing import Any

import click

from adsum import wire
from adsum.cli import output
from adsum.cli.arguments import json_option
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.config.client import ClientConfig


@click.command(epilog="Examples: adsum route history; adsum route history canary --limit 5 --json")
@click.argument("name", required=False, default="")
@click.option(
    "--limit",
    type=click.IntRange(1, wire.MAX_CHANGES_PER_RESPONSE),
    default=20,
    help="Most changes to print.  [default: 20]",
)
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def history(loaded: Settings, name: str, limit: int, as_json: bool) -> None:
    """Show the changes of routes and upstreams.

    The newest change comes first, with its actor and reason. With NAME, only changes of the route NAME and of the
    upstream of the service NAME are shown. Lines with - show a field before the change, lines with + after it.

    --json prints the response of GET /api/v1/intent/history. The exit code is 3 if nothing is recorded.
    """
    history = run_with_client(loaded, lambda client: client.api.edits(name, limit))
    if as_json:
        output.print_json(history)
    else:
        for edit in history.edits:
            _print_edit(edit)
    if not history.edits:
        documents = f"the route or upstream {name!r}" if name else "routes and upstreams"
        problem = f"no change of {documents} is recorded; `adsum route ls` lists the routes"
        raise CommandFailed(ExitCode.NOT_FOUND, problem)


def _print_edit(edit: wire.EditView) -> None:
    time = f"{output.time_of_day(edit.at)}  {output.ago(edit.at)}"
    cause = output.format_cause(edit.edit, edit.actor, edit.reason, claimed=edit.claimed)
    output.print_line(f"{time}  {edit.document} {edit.name}  {cause}")
    for field in dict.fromkeys((*edit.before, *edit.after)):
        if field in ("name", "service"):
            continue  # The line above shows it.
        for sign, values in (("-", edit.before), ("+", edit.after)):
            if field in values:
                output.print_line(f"    {sign} {field} = {_to_json(values[field])}")
    for field in edit.omitted:
        output.print_line(f"    ~ {field} changed; its value is secret or too long to be recorded")


def _to_json(value: Any) -> str:
    return wire.encode(value).decode()
