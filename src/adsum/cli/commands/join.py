"""The command `adsum join`."""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

import click

from adsum.cli import output
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings, flag_name
from adsum.cli.settings.values import setting_fields
from adsum.client.credentials.find import join_folder
from adsum.client.credentials.folder import CredentialsFolder
from adsum.client.errors import NotAuthenticated, RegistryRefused
from adsum.client.native.join import JoinedHost, join_registry, joiner_name
from adsum.config.addresses import DEFAULT_LISTEN
from adsum.config.serve import ServeConfig
from adsum.core.access.join_line import MAX_LINE_LENGTH, SCHEME, JoinLine, parse_join_line
from adsum.core.access.tokens import TokenRole, check_token_name
from adsum.core.errors import Invalid

DEFAULT_PORT: Final = DEFAULT_LISTEN.rpartition(":")[2]
CONFLICT: Final = 409
"""The status of a join under a name that another host has."""
STANDARD_INPUT: Final = "-"
NEXT_COMMANDS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "client": (
            "adsum ls                                        list the services",
            "adsum run --service hello --port 0 -- COMMAND   run a program and register it",
            "adsum.Client()                                  the same registry in Python, without arguments",
        ),
        "gateway": ("adsum gateway --listen 0.0.0.0:8080   forward requests to live instances",),
    }
)
"""Role of a host → commands that work now."""

_UNUSED: Final = tuple(name for name in setting_fields(ServeConfig) if name != "data")


@click.command(
    epilog="Examples: adsum join < line.txt; adsum join line.txt --name web1; adsum join (then paste the line); "
    "adsum join --renew"
)
@click.argument("file", metavar="[FILE]", required=False, default=STANDARD_INPUT)
@click.option(
    "--name", default="", metavar="NAME", help="Name of this host in the registry.  [default: the name of the host]"
)
@click.option(
    "--folder",
    default="",
    metavar="FOLDER",
    help="Folder to write (default: $ADSUM_CREDENTIALS, else /etc/adsum/registry for root and "
    "$XDG_CONFIG_HOME/adsum/registry for others). Programs find another folder by ADSUM_CREDENTIALS.",
)
@click.option("--renew", is_flag=True, help="Renew the certificate of a host that has joined; no line is read.")
@with_settings(ServeConfig, exclude=_UNUSED)
def join(loaded: Settings, file: str, name: str, folder: str, renew: bool) -> None:
    """Join a registry by the line that `adsum token invite` printed there.

    The line is read from FILE, or from standard input, and on a terminal without echo; it holds a secret, so it is
    never an argument. The registry is verified by the hash in the line before the secret is sent. Then this host gets
    a token of its own, and a certificate if the registry signs them, in a folder that only you can read. From then on
    every command and every `adsum.Client()` of yours on this host uses that registry, without an option.

    With a line for a node this host becomes able to run one: its certificate and token are written to security/ below
    the folder of --data, as `adsum serve` has it, and `adsum serve --secure` starts it.

    A host that joins again replaces its folder. Its name is taken while its old token exists: revoke that first
    (`adsum token revoke NAME`), or give another --name. Long-running programs renew the certificate by themselves.

    The exit code is 77 if the registry is not the one in the line, or refuses the invite.
    """
    target = CredentialsFolder(Path(folder) if folder else join_folder(os.environ, os.geteuid()))
    if renew:
        with _folder_errors("--folder"):
            _renew(target)
        return
    _join(loaded, target, _read_line(file), name)


def _join(loaded: Settings, target: CredentialsFolder, line: JoinLine, name: str) -> None:
    name = name or joiner_name(platform.node())
    check_token_name("name", name)
    try:
        joined = asyncio.run(join_registry(line, name, Random()))
    except NotAuthenticated as error:
        detail = error.detail.removesuffix(f" ({error.origin})")
        remedy = "" if "adsum token invite" in detail else "; get a new one by `adsum token invite`"
        raise CommandFailed(ExitCode.NO_PERMISSION, f"the registry refuses the line: {detail}{remedy}") from None
    except RegistryRefused as error:
        if error.status != CONFLICT:
            raise
        raise CommandFailed(ExitCode.FAILURE, f"{error.detail}; --name sets the name of this host") from None
    if joined.credentials.role == TokenRole.NODE:
        with _folder_errors("--data"):
            _write_node(loaded, joined)
        return
    before = _read_before(target)
    if before:
        output.print_message(f"this join replaces {before} in {target.path}")
    with _folder_errors("--folder"):
        target.write(joined.credentials, joined.certificate, joined.key)
    _report(target, joined)


def _write_node(loaded: Settings, joined: JoinedHost) -> None:
    """Writes what the node of this host needs, and says how to start it."""
    from adsum.node_security.joined_node import write_joined_node
    from adsum.node_security.security_folder import SecurityFolder

    config, credentials = loaded.get(ServeConfig), joined.credentials
    if not joined.certificate:
        raise CommandFailed(
            ExitCode.FAILURE,
            "the nodes of this registry have certificates of their operator, so nothing is written: start this node "
            "with --tls-cert and --tls-key",
        )
    folder = SecurityFolder(config.data_folder(config.store))
    try:
        folder.create()
        write_joined_node(folder, credentials.authority, joined.certificate, joined.key, credentials.token)
    except Invalid as error:
        raise loaded.config_error(error) from None
    output.print_message(
        f"this host has joined the registry at {', '.join(credentials.urls)} as the node {credentials.name}"
    )
    output.print_message(f"its certificate and its token are in {folder.path}, which only its owner can read")
    data = f" --data {shlex.quote(config.data)}" if loaded.origins["data"] == flag_name("data") else ""
    output.print_message(
        f"next: adsum serve --secure --listen ADDRESS:{DEFAULT_PORT} --store etcd://HOST:2379{data}    with an address "
        "of this host that the other nodes reach, and with their etcd"
    )


@contextmanager
def _folder_errors(option: str) -> Iterator[None]:
    """Raises `CommandFailed` in place of `OSError`. `option` names another folder."""
    try:
        yield
    except OSError as error:
        raise CommandFailed(ExitCode.FAILURE, f"{error.filename}: {error.strerror}; {option} names another") from None


def _read_before(target: CredentialsFolder) -> str:
    """Returns what the folder holds, as a noun for people; "" if there is none."""
    try:
        before = target.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (Invalid, OSError):
        return "credentials that can't be read"
    return f"the credentials of {before.name or 'this host'} for {', '.join(before.urls)}"


def _report(target: CredentialsFolder, joined: JoinedHost) -> None:
    credentials = joined.credentials
    output.print_message(
        f"this host has joined the registry at {', '.join(credentials.urls)} as {credentials.name}, with the scopes "
        f"{' '.join(joined.scopes)}"
    )
    what = "its token and a certificate are" if joined.certificate else "its token is"
    output.print_message(f"{what} in {target.path}, which only this user can read")
    if target.path != join_folder(os.environ, os.geteuid()):
        output.print_message(f"programs find the folder by ADSUM_CREDENTIALS={target.path}")
    output.print_message("now these work here:")
    for text in NEXT_COMMANDS.get(credentials.role, ()):
        output.print_message(f"  {text}")


def _read_line(file: str) -> JoinLine:
    """Returns the line in a file, from standard input, or from a terminal without echo."""
    if file.startswith(SCHEME):
        raise CommandFailed(
            ExitCode.USAGE,
            "the line must not be an argument, because it holds a secret that others see there: put it into a file, "
            "or run `adsum join` and paste it; revoke this one if others use this host",
        )
    try:
        if file != STANDARD_INPUT:
            with Path(file).open() as opened:
                text = opened.read(MAX_LINE_LENGTH + 1)
        elif sys.stdin.isatty():
            text = click.prompt("Line that `adsum token invite` printed", hide_input=True, err=True)
        else:
            text = sys.stdin.read(MAX_LINE_LENGTH + 1)
    except OSError as error:
        raise CommandFailed(
            ExitCode.FAILURE, f"{file}: {error.strerror}; it must hold the line that `adsum token invite` printed"
        ) from None
    except UnicodeDecodeError:
        text = ""  # Refused like any other text that is no line.
    try:
        return parse_join_line(text)
    except Invalid as error:
        raise CommandFailed(ExitCode.USAGE, f"the line {error.problem}") from None


def _renew(target: CredentialsFolder) -> None:
    from adsum.client.native.certificate_renewal import renew_certificate

    try:
        credentials = target.read()
    except FileNotFoundError:
        raise CommandFailed(
            ExitCode.USAGE, f"{target.path}: there is no registry that this host has joined; join first"
        ) from None

    asyncio.run(renew_certificate(credentials, Random()))
    output.print_message(f"{credentials.certificate} is renewed")
