"""Commands about one instance, every instance of a service, or every instance at an address."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import click

from adsum.cli import output
from adsum.cli.arguments import InstanceRef, ServiceType
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.core.errors import UnknownInstance

MIN_INSTANCE_WAIT: Final = 0.1
"""Seconds for which each is waited for, even if the time for all is over: only so it is known who has not confirmed."""

C = TypeVar("C", bound=Callable[..., Any])

BeforeAll = Callable[[Settings, Sequence[InstanceRef], Mapping[str, Any]], None]
"""What is done about several instances at once, before each has its turn; with the options of the command."""


def for_each_instance(before_all: BeforeAll | None = None) -> Callable[[C], Callable[..., Any]]:
    """Give a command its argument SERVICE/ID, `--all` and `--at`: it is run for each instance, one after the other.

    The command takes `Settings` and a `key`. Its exit code is that of the last one that did not end with 0. `begin` is
    called before, if there are several. A `timeout` among the options is for all of them together.
    """

    def decorate(command: C) -> Callable[..., Any]:
        return _for_each(command, before_all)

    return decorate


def _for_each(command: C, begin: BeforeAll | None) -> Callable[..., Any]:

    @wraps(command)
    def for_each(loaded: Settings, key: InstanceRef | None, every: bool, at: str | None, **given: Any) -> None:
        if key is not None and key.id:
            if every or at is not None:
                raise click.UsageError(f"{key} is one instance: leave out its id, or --all and --at")
            command(loaded, key=key, **given)
            return
        if key is None and at is None:
            raise click.UsageError("name an instance as SERVICE/ID, a service with --all, or a host with --at ADDRESS")
        if key is not None and not every and at is None:
            hint = f"`adsum ls {key}` shows them, --all means each of them"
            raise click.BadParameter(f"must be SERVICE/ID, such as {key}/web1; {hint}", param_hint="SERVICE/ID")
        found = run_with_client(loaded, lambda client: _found(client, key.service if key is not None else None, at))
        if not found:
            where = f" at {at}" if at is not None else ""
            raise CommandFailed(
                ExitCode.NOT_FOUND, f"no instance{f' of {key}' if key is not None else ''} is listed{where}"
            )
        if begin is not None and len(found) > 1:
            begin(loaded, found, given)
        code, began, timeout = ExitCode.OK, time.monotonic(), given.get("timeout")
        for each in found:
            if timeout:  # It is for all of them.
                given["timeout"] = max(MIN_INSTANCE_WAIT, round(timeout - (time.monotonic() - began), 1))
            try:
                command(loaded, key=each, **given)
            except UnknownInstance:
                output.print_message(f"{each} left meanwhile")
            except CommandFailed as ended:
                output.print_message(str(ended))
                code = ended.code
        if code is not ExitCode.OK:
            raise CommandFailed(code)

    decorated: Callable[..., Any] = for_each
    for option in (
        click.option("--at", metavar="ADDRESS", help="Every instance at this address, of SERVICE or of all services."),
        click.option("--all", "every", is_flag=True, help="Every instance of SERVICE."),
        click.argument("key", metavar="SERVICE[/ID]", required=False, type=ServiceType(with_id=True)),
    ):
        decorated = option(decorated)
    return decorated


async def _found(client: Client, service: str | None, at: str | None) -> list[InstanceRef]:
    """The instances of one service, or of all, at an address if one is given."""
    names = [service] if service is not None else [each.name for each in (await client.api.services()).services]
    views = [await client.api.service(name) for name in names]
    return [
        InstanceRef(view.service, each.id)
        for view in views
        for each in view.instances
        if at is None or each.address == at
    ]
