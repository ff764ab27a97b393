"""The commands `adsum token …`: create, list, show, rotate and revoke tokens, and invite hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adsum.cli import output
from adsum.cli.arguments import DurationType, complete, json_option, reason_option
from adsum.cli.client import run_with_client
from adsum.cli.commands.invite import invite, list_invites, revoke_invite
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import UNUSED_BY_READS, UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.cli.token_arguments import SCOPE_HELP, TOKEN_LIFETIME, checked_scopes, checked_secret
from adsum.client.credentials.folder import parse_token_file
from adsum.client.errors import RegistryRefused
from adsum.client.native.access_api import AccessApi
from adsum.client.native.api import RegistryApi
from adsum.config.client import ClientConfig
from adsum.core.access.tokens import check_token_name
from adsum.core.errors import Invalid
from adsum.wire import tokens

T = TypeVar("T")

if TYPE_CHECKING:
    Type = click.ParamType[Any]
else:
    Type = click.ParamType


class TokenNameType(Type):
    """The type of an argument that names a token, completed from the registry."""

    name = "token"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            check_token_name("name", str(value))
        except Invalid as error:
            self.fail(error.problem, param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        async def names(api: RegistryApi) -> Sequence[str]:
            return [token.name for token in (await AccessApi(api).tokens()).tokens]

        return [click.shell_completion.CompletionItem(name) for name in complete(names) if name.startswith(incomplete)]


@click.group(
    epilog="Examples: adsum token invite --for client; adsum token create ci --scope write:orders --lifetime 90d "
    "--output ci-token; adsum token ls"
)
def token() -> None:
    """Manage tokens: who may read, write and operate which services.

    `adsum token invite` prints a line by which another host joins, and gets a token of its own. `adsum token create`
    makes a token for a program or a person that does not join. These commands need the scope admin, which the host of
    the registry's node has (`adsum whoami`).

    A scope is RIGHT:PATTERN. read sees services and watches them; write registers instances, and changes those that
    this token registered; operate changes those of others, and declares routes; admin manages tokens and does
    everything else. Each right includes those before it. The token `anonymous` has no secret: its scopes are those of
    callers that send no token.
    """


@token.command(epilog="Example: adsum token create ci --scope write:orders --lifetime 90d --output ci-token")
@click.argument("name", type=TokenNameType())
@click.option("--scope", multiple=True, required=True, metavar="SCOPE", help=f"{SCOPE_HELP}.")
@click.option("--lifetime", type=TOKEN_LIFETIME, help="Time until the token expires, such as 90d.  [default: never]")
@click.option(
    "--output",
    "file",
    metavar="FILE",
    help="Write the token to a new file that only you can read, instead of to standard output.",
)
@reason_option("Reason of the creation")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def create(
    loaded: Settings,
    name: str,
    scope: tuple[str, ...],
    lifetime: float | None,
    file: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Create a token, and print it this once.

    The registry keeps only its hash. Give the token to a program in a file, by ADSUM_TOKEN_FILE or --token-file.

    --json prints the response of POST /api/v1/tokens, with the token.
    """
    body = tokens.TokenBody(name, checked_scopes(scope), lifetime, reason)
    with _NewFile(file) as written:
        issued = run_with_client(loaded, lambda client: AccessApi(client.api).create_token(body))
        _print_issued(issued, written, as_json)


@token.command("ls", epilog="Example: adsum token ls --json")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def list_tokens(loaded: Settings, as_json: bool) -> None:
    """List the tokens, without their secrets.

    LAST USED is exact for uses at the node that answers, since its start, and else the day.

    --json prints the response of GET /api/v1/tokens.
    """
    found = run_with_client(loaded, lambda client: AccessApi(client.api).tokens())
    if as_json:
        output.print_json(found)
        return
    now = time.time()
    columns = ("NAME", "SCOPES", "ROLE", "EXPIRES", "LAST USED", "CREATED BY")
    output.print_table(columns, [_row(view, now) for view in found.tokens])


@token.command(epilog="Example: adsum token show ci --json")
@click.argument("name", type=TokenNameType())
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def show(loaded: Settings, name: str, as_json: bool) -> None:
    """Show a token, without its secret.

    --json prints the response of GET /api/v1/tokens/NAME. The exit code is 3 if there is no such token.
    """
    view = run_with_client(loaded, lambda client: _found(name, AccessApi(client.api).token(name)))
    if as_json:
        output.print_json(view)
        return
    now = time.time()
    rows = [
        ("name", view.name),
        ("scopes", " ".join(view.scopes)),
        ("role", view.role.value),
        ("created", " by ".join(filter(None, (output.ago(view.created, now), view.created_by)))),
        ("expires", _expiry(view, now)),
        ("last used", _last_use(view, now)),
        ("valid secrets", str(view.secrets)),
    ]
    output.print_table(("", ""), rows)


@token.command(epilog="Example: adsum token rotate ci --overlap 24h --output new && mv new ci-token")
@click.argument("name", type=TokenNameType())
@click.option(
    "--overlap",
    type=DurationType(0.0, tokens.MAX_OVERLAP),
    default="24h",
    help="Time for which the secret before it stays valid; 0 ends it at once.  [default: 24h]",
)
@click.option("--output", "file", metavar="FILE", help="Write the token to a new file that only you can read.")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def rotate(loaded: Settings, name: str, overlap: float, file: str | None, as_json: bool) -> None:
    """Give a token a new secret, and print it this once.

    Programs read their token file again when the registry refuses the secret, so replace the file within the overlap.
    After a leak use --overlap 0.

    --json prints the response of POST /api/v1/tokens/NAME/rotate, with the token.
    """
    body = tokens.RotateBody(overlap)
    with _NewFile(file) as written:
        issued = run_with_client(loaded, lambda client: _found(name, AccessApi(client.api).rotate_token(name, body)))
        _print_issued(issued, written, as_json)


@token.command(epilog="Example: adsum token revoke ci")
@click.argument("name", type=TokenNameType())
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def revoke(loaded: Settings, name: str, as_json: bool) -> None:
    """Revoke a token at every node.

    From now on it proves nothing, and what it opened (watches, streams of gateways) ends within a second. The
    certificate of a host that joined is revoked with its token. What the token registered stays until its lease
    expires.

    --json prints the response of DELETE /api/v1/tokens/NAME.
    """
    result = run_with_client(loaded, lambda client: _found(name, AccessApi(client.api).revoke_token(name)))
    if as_json:
        output.print_json(result)
    else:
        output.print_message(f"the token {name} is revoked")


for _command in (invite, list_invites, revoke_invite):
    token.add_command(_command)


async def _found(name: str, request: Awaitable[T]) -> T:
    """Returns the answer. Raises `CommandFailed` if the registry has no such token."""
    try:
        return await request
    except RegistryRefused as error:
        if error.status == 404:
            raise CommandFailed(ExitCode.NOT_FOUND, f"no token {name!r}; `adsum token ls` lists them") from None
        raise


class _NewFile:
    """A new file for a secret, made before the secret exists, and removed if there is none to write."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._descriptor = -1
        self.is_written = False

    def __enter__(self) -> _NewFile:
        if self._path is not None:
            try:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                raise CommandFailed(
                    ExitCode.USAGE, f"--output: {self._path} exists: name a new file, or move the old one away"
                ) from None
            except OSError as error:
                raise CommandFailed(
                    ExitCode.USAGE, f"--output: {self._path} can't be made: {error.strerror}; name another file"
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            os.close(self._descriptor)
            if not self.is_written:
                with suppress(OSError):
                    self._path.unlink()

    def write(self, text: str) -> bool:
        """Writes the secret. Returns False if there is no file. Raises `CommandFailed`."""
        if self._path is None:
            return False
        try:
            # The file that was made, whatever has the name now.
            with os.fdopen(os.dup(self._descriptor), "w") as file:
                file.write(f"{text}\n")
        except OSError as error:
            raise CommandFailed(
                ExitCode.FAILURE,
                f"--output: {self._path} can't be written: {error.strerror}; the secret is lost, so give the token "
                "another one by `adsum token rotate`",
            ) from None
        self.is_written = True
        output.print_message(f"the token is in {self._path}, which only you can read")
        return True


def _print_issued(issued: tokens.IssuedToken, file: _NewFile, as_json: bool) -> None:
    view = issued.view
    if not issued.token:
        output.print_message(f"{view.name} has no secret: its scopes are those of callers that send no token")
    elif not file.write(issued.token) and not as_json:
        click.echo(checked_secret(lambda: parse_token_file(issued.token.encode())))
    if as_json:
        output.print_json(issued if not file.is_written else tokens.IssuedToken("", view))
        return
    expiry = _expiry(view, time.time())
    output.print_message(f"{view.name}: {' '.join(view.scopes)}; expires {expiry}; the secret is not shown again")


def _row(view: tokens.TokenView, now: float) -> tuple[str, ...]:
    return (
        view.name,
        " ".join(view.scopes),
        view.role.value,
        _expiry(view, now),
        _last_use(view, now),
        view.created_by,
    )


def _expiry(view: tokens.TokenView, now: float) -> str:
    return output.until(view.expires, now) if view.expires is not None else "never"


def _last_use(view: tokens.TokenView, now: float) -> str:
    return output.ago(view.used, now) if view.used else "never"
