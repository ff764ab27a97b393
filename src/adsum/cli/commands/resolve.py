"""Commands that find: ls and resolve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from random import Random
from types import MappingProxyType
from typing import Final

import click

from adsum import wire
from adsum.balance.load_tracker import LoadTracker
from adsum.balance.policies import POLICIES, policy
from adsum.cli import output
from adsum.cli.arguments import DurationType, ServiceType, json_option, unknown_service
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.client.errors import NeedsRegistry, RegistryUnavailable
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import View, ViewOrigin
from adsum.config.serve import ClientConfig
from adsum.core.addresses import format_host_port
from adsum.core.model import Endpoint, Status
from adsum.core.selection import Selection, SelectionOptions, select_endpoints

MAX_RESOLVE_WAIT: Final = 86_400.0
"""Seconds; a script that waits a day has forgotten what for."""

FORMS: Final = ("address", "url", "host", "port")
"""What of an endpoint `resolve` prints."""
SOURCE_TIMEOUT: Final = 5.0
"""Seconds for an etcd or a Consul to answer."""
MAX_INSTANCES_NAMED: Final = 5
"""How many instances an error tells one by one."""

_ORDER: Final = tuple(Status)


@click.command(epilog="Examples: adsum ls; adsum ls orders --status critical; adsum ls orders --json | jq .instances")
@click.argument("service", required=False, type=ServiceType())
@click.option(
    "--status", multiple=True, type=click.Choice([each.value for each in Status]), help="Only instances that stand so."
)
@click.option("--tag", multiple=True, metavar="TEXT", help="Only instances with this tag.")
@click.option("--in-zone", metavar="TEXT", help="Only instances of this zone.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only instances that say so.")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def ls(
    loaded: Settings,
    service: str | None,
    status: tuple[str, ...],
    tag: tuple[str, ...],
    in_zone: str | None,
    metadata: tuple[str, ...],
    as_json: bool,
) -> None:
    """List services, or the instances of one with how each stands, why, and since when.

    --json prints the answer of GET /api/v1/services or /api/v1/services/SERVICE. The exit code is 3 if nobody is
    registered under that name.
    """
    if service is None:
        _services(run_with_client(loaded, lambda client: client.api.services()), as_json)
        return
    wanted = _pairs(metadata)

    async def work(client: Client) -> tuple[wire.ServiceView, list[str]]:
        view = await client.api.service(service, status=status, tag=tag, zone=in_zone, metadata=wanted)
        names = [] if view.instances else [each.name for each in (await client.api.services()).services]
        return view, names

    view, names = run_with_client(loaded, work)
    if as_json:
        output.print_json(view)
    elif view.instances:
        output.print_table(
            ("ID", "ADDRESS", "STATUS", "SINCE", "WHY", "ZONE", "WEIGHT", "TAGS"),
            [_row(each) for each in view.instances],
        )
    if not view.instances and service in names and (status or tag or in_zone or metadata):
        output.print_message(f"no instance of {service} is like that")
    elif not view.instances:
        raise CommandFailed(ExitCode.NOT_FOUND, unknown_service(service, names))


def _services(found: wire.ServiceList, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    elif found.services:
        there = [status for status in _ORDER if any(status in each.status_counts for each in found.services)]
        columns = ("SERVICE", "INSTANCES", *(status.upper() for status in there))
        rows = [
            (each.name, str(each.instances), *(str(each.status_counts.get(status, "") or "") for status in there))
            for each in found.services
        ]
        output.print_table(columns, rows)
    else:
        output.print_message("the registry is empty; `adsum run --help` tells how to change that")


def _row(view: wire.InstanceView) -> tuple[str, ...]:
    return (
        view.id,
        format_host_port(view.address, view.port),
        view.status,
        output.ago(view.since),
        output.format_cause(view.cause, view.actor, view.reason),
        view.zone,
        str(view.weight) if view.weight != 1 else "",
        ", ".join(view.tags),
    )


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"must be KEY=VALUE, not {text!r}", param_hint="--metadata")
        pairs[key] = value
    return pairs


@click.command(epilog="Examples: curl $(adsum resolve orders --as url)/health; adsum resolve orders --wait 30s --all")
@click.argument("service", type=ServiceType())
@click.option("--all", "every", is_flag=True, help="Every instance that may be called, one a line.")
@click.option(
    "--as",
    "form",
    type=click.Choice(FORMS),
    default="address",
    help="What to print: HOST:PORT, SCHEME://HOST:PORT, or one part.  [default: address]",
)
@click.option(
    "--policy", "name", type=click.Choice([*POLICIES]), default="weighted_random", help="[default: weighted_random]"
)
@click.option("--key", metavar="TEXT", help="What ring_hash and maglev choose by: the same one for the same key.")
@click.option(
    "--wait", type=DurationType(0.0, MAX_RESOLVE_WAIT), default="0", help="Wait so long for one that is well."
)
@json_option
@with_settings(ClientConfig, exclude=("actor",))
def resolve(
    loaded: Settings, service: str, every: bool, form: str, name: str, key: str | None, wait: float, as_json: bool
) -> None:
    """Print the address of an instance to call, for a script.

    Chooses among the instances that may be called, those of our own zone first, as the client library does; never one
    that drains. If the registry is away, the last view that a program on this host kept is used, and its age is said;
    with --wait, a registry that refuses connections is waited for first. The exit code is 3, with the reason, if there
    is nobody.

    --json prints the chosen instances as GET /api/v1/services/SERVICE has them.
    """
    zone = SelectionOptions(zone=loaded.get(ClientConfig).zone)

    async def work(client: Client) -> wire.ServiceView:
        if wait:
            await _wait(client, service, zone, wait)
        view = await _view(client, service)
        if not view.instances:
            raise CommandFailed(ExitCode.NOT_FOUND, await _unknown(client, service))
        return view

    view = run_with_client(loaded, work)
    selection = _selected(view, zone)
    if not selection.endpoints:
        raise CommandFailed(ExitCode.NOT_FOUND, f"no instance of {service} may be called: {_standing(view)}")
    if selection.is_panicking:
        output.print_message(
            f"too few instances of {service} are passing to trust that ({_standing(view)}): choosing from all"
        )
    endpoints = [choice.endpoint for choice in selection.endpoints]
    if not every:
        endpoints = [policy(name).build(selection.endpoints, LoadTracker(), Random()).pick(key)]
    if as_json:
        chosen = {endpoint.id for endpoint in endpoints}
        instances = [each for each in view.instances if each.id in chosen]
        output.print_json(wire.ServiceView(view.epoch, service, view.revision, instances))
        return
    for endpoint in endpoints:
        output.print_line(_PRINTED[form](endpoint))


async def _wait(client: Client, service: str, options: SelectionOptions, length: float) -> None:
    """Return when there is somebody to call who is known to be well, at latest after `length` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(length), aclosing(client.resolver(service).watch()) as views:
            async for view in views:
                if not _trusted(select_endpoints(view.endpoints, options)):
                    continue
                if view.origin is ViewOrigin.LIVE or await _hangs(client, service):
                    return


async def _hangs(client: Client, service: str) -> bool:
    """Whether the registry is silent: then what was known last is the best that there is. One that refuses connections
    may be about to start.
    """
    with suppress(NeedsRegistry, RegistryUnavailable):
        try:
            async with asyncio.timeout(client.source.cache_fallback_delay):
                await client.api.service(service)
        except TimeoutError:
            return True
    return False


def _trusted(selection: Selection) -> bool:
    return bool(selection.endpoints) and not selection.is_panicking


async def _view(client: Client, service: str) -> wire.ServiceView:
    """The service as it is listed; if nobody answers, or not soon, as a program on this host knew it last."""
    resolver = client.resolver(service)
    listing, falling = asyncio.ensure_future(_listed(client, service)), asyncio.ensure_future(_fallen_back(resolver))
    try:
        await asyncio.wait((listing, falling), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(
            (listing,), timeout=client.source.cache_fallback_delay
        )  # A watch may fail where a look-up works.
        if not listing.done() and resolver.view.endpoints:
            raise RegistryUnavailable(resolver.problem)
        return await listing
    except RegistryUnavailable as error:
        resolver.use_cached_view()
        if not resolver.view.endpoints:
            raise
        bound = f" ({resolver.view_warning})" if resolver.view_warning else ""
        output.print_message(f"{error}; using what was known {output.format_duration(resolver.view.age())} ago{bound}")
        return _as_view(resolver.view)
    finally:
        listing.cancel()
        falling.cancel()
        await asyncio.gather(listing, falling, return_exceptions=True)


async def _fallen_back(resolver: Resolver) -> None:
    """Return when the kept view is shown, because no registry answers."""
    async with aclosing(resolver.watch()) as views:
        async for view in views:
            if view.origin is ViewOrigin.DISK:
                return
    await asyncio.Event().wait()


async def _listed(client: Client, service: str) -> wire.ServiceView:
    """Raises `RegistryUnavailable`."""
    try:
        return await client.api.service(service)
    except NeedsRegistry:
        return _as_view(await _followed(client, service))


async def _followed(client: Client, service: str) -> View:
    """The service as the client's source tells of it, whatever that is. Raises `RegistryUnavailable`."""
    resolver = client.resolver(service)
    with suppress(TimeoutError):
        async with asyncio.timeout(SOURCE_TIMEOUT), aclosing(resolver.watch()) as views:
            async for view in views:
                if resolver.connected:
                    return view
    raise RegistryUnavailable(resolver.problem or "no answer in time")


async def _unknown(client: Client, service: str) -> str:
    try:
        return unknown_service(service, [each.name for each in (await client.api.services()).services])
    except NeedsRegistry:
        return f"nobody is listed as {service!r}"


def _as_view(view: View) -> wire.ServiceView:
    return wire.ServiceView(view.epoch, view.service, view.revision, [_instance(each) for each in view.endpoints])


def _instance(endpoint: Endpoint) -> wire.InstanceView:
    instance = endpoint.instance
    return wire.InstanceView(
        id=instance.id,
        address=instance.address,
        port=instance.port,
        status=endpoint.status,
        scheme=instance.scheme,
        zone=instance.zone,
        weight=instance.weight,
        tags=instance.tags,
        metadata=dict(instance.metadata),
    )


def _selected(view: wire.ServiceView, options: SelectionOptions) -> Selection:
    return select_endpoints([each.to_endpoint(view.service) for each in view.instances], options)


def _standing(view: wire.ServiceView) -> str:
    """How the instances stand and why, if they are few; how many, if they are many."""
    if len(view.instances) <= MAX_INSTANCES_NAMED:
        return "; ".join(
            f"{each.id} is {each.status} ({output.format_cause(each.cause, each.actor, each.reason)})"
            for each in view.instances
        )
    stand = [each.status for each in view.instances]
    return ", ".join(f"{stand.count(status)} {status}" for status in _ORDER if status in stand)


_PRINTED: Final[Mapping[str, Callable[[Endpoint], str]]] = MappingProxyType(
    {
        "address": lambda endpoint: endpoint.authority,
        "url": lambda endpoint: endpoint.url,
        "host": lambda endpoint: endpoint.address,
        "port": lambda endpoint: str(endpoint.port),
    }
)
