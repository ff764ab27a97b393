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
        return _decorate(command, before_all)

    return decorate


def _decorate(command: C, before_all: BeforeAll | None) -> Callable[..., Any]:

    @wraps(command)
    def run_for_each(
        loaded: Settings, key: InstanceRef | None, all_instances: bool, at: str | None, **options: Any
    ) -> None:
        if key is not None and key.id:
            if all_instances or at is not None:
                raise click.UsageError(f"{key} is one instance: leave out its id, or --all and --at.")
            command(loaded, key=key, **options)
            return
        if key is None and at is None:
            raise click.UsageError("name an instance as SERVICE/ID, a service with --all, or a host with --at ADDRESS.")
        if key is not None and not all_instances and at is None:
            hint = f"`adsum ls {key}` lists the instances, --all selects all of them"
            raise click.BadParameter(f"must be SERVICE/ID, such as {key}/web1; {hint}", param_hint="SERVICE/ID")
        service = key.service if key is not None else None
        selected = run_with_client(loaded, lambda client: _select(client, service, at))
        if not selected:
            of_service = f" of {service}" if service is not None else ""
            at_address = f" at {at}" if at is not None else ""
            raise CommandFailed(ExitCode.NOT_FOUND, f"no instance{of_service} is listed{at_address}")
        if before_all is not None and len(selected) > 1:
            before_all(loaded, selected, options)
        code, started_at, timeout = ExitCode.OK, time.monotonic(), options.get("timeout")
        for instance in selected:
            if timeout:  # One timeout covers all instances.
                options["timeout"] = max(MIN_INSTANCE_WAIT, round(timeout - (time.monotonic() - started_at), 1))
            try:
                command(loaded, key=instance, **options)
            except UnknownInstance:
                output.print_message(f"{instance} left meanwhile")
            except CommandFailed as failure:
                output.print_message(str(failure))
                code = failure.code
        if code is not ExitCode.OK:
            raise CommandFailed(code)

    decorated: Callable[..., Any] = run_for_each
    for option in (
        click.option("--at", metavar="ADDRESS", help="All instances at this address, of SERVICE or of all services."),
        click.option("--all", "all_instances", is_flag=True, help="All instances of SERVICE."),
        click.argument("key", metavar="SERVICE[/ID]", required=False, type=ServiceType(with_id=True)),
    ):
        decorated = option(decorated)
    return decorated


async def _select(client: Client, service: str | None, at: str | None) -> list[InstanceRef]:
    """Returns the instances of one service or of all services, only those at `at` if it is given."""
    names = [service] if service is not None else [listed.name for listed in (await client.api.services()).services]
    views = [await client.api.service(name) for name in names]
    return [
        InstanceRef(view.service, instance.id)
        for view in views
        for instance in view.instances
        if at is None or instance.address == at
    ]
