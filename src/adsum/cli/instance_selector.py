"""Arguments of commands that act on one instance, all instances of a service, or all instances at an address."""

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
"""Seconds of the shortest wait for one instance, even if the time for all is used up. Without a wait the registry would
not name the consumers that have not confirmed."""

C = TypeVar("C", bound=Callable[..., Any])

BeforeAll = Callable[[Settings, Sequence[InstanceRef], Mapping[str, Any]], None]
"""Called once with all selected instances, before the command runs for each; receives the options of the command."""


def for_each_instance(before_all: BeforeAll | None = None) -> Callable[[C], Callable[..., Any]]:
    """Returns a decorator that adds the argument SERVICE/ID, `--all` and `--at` to a command.

    The command takes `Settings` and a `key`; it runs for each selected instance, one after the other. The exit code is
    that of the last run that failed. `before_all` is called first if several instances are selected. An option
    `timeout` covers all of them together.
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
            raise click.UsageError("name an instance as SERVICE/ID, a service with --all, or a host with --at ADDRESS.")
        if key is not None and not every and at is None:
            hint = f"`adsum ls {key}` lists the instances, --all selects all of them"
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
            if timeout:  # One timeout covers all instances.
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
        click.option("--at", metavar="ADDRESS", help="All instances at this address, of SERVICE or of all services."),
        click.option("--all", "every", is_flag=True, help="All instances of SERVICE."),
        click.argument("key", metavar="SERVICE[/ID]", required=False, type=ServiceType(with_id=True)),
    ):
        decorated = option(decorated)
    return decorated


async def _found(client: Client, service: str | None, at: str | None) -> list[InstanceRef]:
    """Returns the instances of one service or of all services, only those at `at` if it is given."""
    names = [service] if service is not None else [each.name for each in (await client.api.services()).services]
    views = [await client.api.service(name) for name in names]
    return [
        InstanceRef(view.service, each.id)
        for view in views
        for each in view.instances
        if at is None or each.address == at
    ]
