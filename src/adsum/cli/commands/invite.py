"""The commands `adsum token invite`, `invites` and `revoke-invite`: lines by which hosts join the registry."""

from __future__ import annotations

import time
from typing import Final

import click

from adsum.cli import output
from adsum.cli.arguments import json_option
from adsum.cli.client import run_with_client
from adsum.cli.settings.flags import UNUSED_BY_READS, UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.cli.token_arguments import INVITE_LIFETIME, SCOPE_HELP, checked_scopes, checked_secret
from adsum.client.native.access_api import AccessApi
from adsum.config.client import ClientConfig
from adsum.core.access.join_line import parse_join_line
from adsum.wire import tokens

INVITED_ROLES: Final = ("client", "gateway", "node")


@click.command(epilog="Example: adsum token invite --for client | ssh web1 adsum join")
@click.option("--for", "role", type=click.Choice(INVITED_ROLES), required=True, help="What the host joins as.")
@click.option(
    "--scope",
    multiple=True,
    metavar="SCOPE",
    help=f"{SCOPE_HELP}.  [default: client read:* write:*; gateway read:*; node node read:*]",
)
@click.option(
    "--lifetime",
    type=INVITE_LIFETIME,
    help="Time until the line expires.  [default: client 7d; gateway and node 1h]",
)
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def invite(loaded: Settings, role: str, scope: tuple[str, ...], lifetime: float | None, as_json: bool) -> None:
    """Print a line by which another host joins.

    `adsum join` reads it there. The line names the nodes of the registry, the hash of its authority, and a secret:
    treat it like a password. The line of a client joins any number of hosts until it expires; those of a gateway and of
    a node join one host.

    --json prints the response of POST /api/v1/invites, with the line.
    """
    body = tokens.InviteBody(role, checked_scopes(scope) if scope else None, lifetime)
    issued = run_with_client(loaded, lambda client: AccessApi(client.api).create_invite(body))
    if as_json:
        output.print_json(issued)
        return
    click.echo(checked_secret(lambda: str(parse_join_line(issued.line))))
    uses = "one host" if issued.single_use else "any number of hosts"
    output.print_message(
        f"it joins {uses} with the scopes {' '.join(issued.scopes)}, and expires "
        f"{output.until(issued.expires, time.time())}; on the other host run `adsum join` and paste it"
    )


@click.command("invites", epilog="Example: adsum token invites --json")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def list_invites(loaded: Settings, as_json: bool) -> None:
    """List the lines by which hosts may still join.

    Their secrets are not shown. ID is the part of a join line between the last slash and the dot.

    --json prints the response of GET /api/v1/invites.
    """
    found = run_with_client(loaded, lambda client: AccessApi(client.api).invites())
    if as_json:
        output.print_json(found)
        return
    now = time.time()
    columns = ("ID", "ROLE", "SCOPES", "HOSTS LEFT", "EXPIRES", "CREATED BY")
    output.print_table(columns, [_row(view, now) for view in found.invites])


@click.command("revoke-invite", epilog="Example: adsum token revoke-invite 0123456789abcdef")
@click.argument("id")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def revoke_invite(loaded: Settings, id: str, as_json: bool) -> None:
    """Revoke a line that has leaked.

    ID is the part of the line between the last slash and the dot. Hosts that have joined by it keep their tokens:
    `adsum token ls` shows them as created by invite:ID. Succeeds if there is no such invite: it may have been used up.

    --json prints the response of DELETE /api/v1/invites/ID.
    """
    result = run_with_client(loaded, lambda client: AccessApi(client.api).revoke_invite(id))
    if as_json:
        output.print_json(result)
    else:
        output.print_message(f"no host joins by the invite {id} any more")


def _row(view: tokens.InviteView, now: float) -> tuple[str, ...]:
    return (
        view.id,
        view.role.value,
        " ".join(view.scopes),
        "any number" if view.uses_left is None else str(view.uses_left),
        output.until(view.expires, now),
        view.created_by,
    )
