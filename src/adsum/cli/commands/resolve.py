"""The command `adsum resolve`."""

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
from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.client.errors import NeedsRegistry, RegistryUnavailable
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import View, ViewOrigin
from adsum.config.client import ClientConfig
from adsum.core.model import Endpoint, Status
from adsum.core.selection import SelectionOptions, select_endpoints

MAX_RESOLVE_WAIT: Final = 86_400.0
"""Seconds; the longest wait that `resolve --wait` accepts."""

FORMS: Final = ("address", "url", "host", "port")
"""The parts of an endpoint that `resolve` can print."""
SOURCE_TIMEOUT: Final = 5.0
"""Seconds within which an etcd or a Consul must answer."""
MAX_INSTANCES_NAMED: Final = 5
"""The most instances that an error lists one by one."""

_STATUS_ORDER: Final = tuple(Status)


@click.command(epilog="Examples: curl $(adsum resolve orders --as url)/health; adsum resolve orders --wait 30s --all")
@click.argument("service", type=ServiceType())
@click.option("--all", "all_instances", is_flag=True, help="Print every instance that may be called, one a line.")
@click.option(
    "--as",
    "form",
    type=click.Choice(FORMS),
    default="address",
    help="Part to print: HOST:PORT (address), SCHEME://HOST:PORT (url), host or port.  [default: address]",
)
@click.option(
    "--policy",
    "policy_name",
    type=click.Choice([*POLICIES]),
    default="weighted_random",
    help="Load balancing policy.  [default: weighted_random]",
)
@click.option(
    "--key", metavar="TEXT", help="Hash key for ring_hash and maglev: the same key selects the same instance."
)
@click.option(
    "--wait", type=DurationType(0.0, MAX_RESOLVE_WAIT), default="0", help="Wait up to this long for a healthy instance."
)
@json_option
@with_settings(ClientConfig, exclude=("actor",))
def resolve(
    loaded: Settings,
    service: str,
    all_instances: bool,
    form: str,
    policy_name: str,
    key: str | None,
    wait: float,
    as_json: bool,
) -> None:
    """Print the address of an instance to call, for use in scripts.

    Chooses as the client library does: among the instances that may be called, those of --zone first, and never one
    that drains. If no registry answers, the command uses the last view that a program on this host cached, and reports
    its age. With --wait it first waits if the registry refuses connections, because it may be starting. If no instance
    may be called, the exit code is 3 and the error gives the reason.

    --json prints the chosen instances in the format of GET /api/v1/services/SERVICE.
    """
    options = SelectionOptions(zone=loaded.get(ClientConfig).zone)

    async def work(client: Client) -> wire.ServiceView:
        if wait:
            await _wait_for_healthy_instance(client, service, options, wait)
        view = await _read_service(client, service)
        if not view.instances:
            raise CommandFailed(ExitCode.NOT_FOUND, await _unknown_service(client, service))
        return view

    view = run_with_client(loaded, work)
    selection = select_endpoints([instance.to_endpoint(view.service) for instance in view.instances], options)
    if not selection.endpoints:
        raise CommandFailed(ExitCode.NOT_FOUND, f"no instance of {service} may be called: {_describe_statuses(view)}")
    if selection.is_panicking:
        statuses = _describe_statuses(view)
        output.print_message(
            f"too few instances of {service} are passing ({statuses}): choosing among all (panic threshold)"
        )
    endpoints = [choice.endpoint for choice in selection.endpoints]
    if not all_instances:
        endpoints = [policy(policy_name).build(selection.endpoints, LoadTracker(), Random()).pick(key)]
    if as_json:
        chosen = {endpoint.id for endpoint in endpoints}
        instances = [instance for instance in view.instances if instance.id in chosen]
        output.print_json(wire.ServiceView(view.epoch, service, view.revision, instances))
        return
    for endpoint in endpoints:
        output.print_line(_FORMATTERS[form](endpoint))


async def _wait_for_healthy_instance(client: Client, service: str, options: SelectionOptions, timeout: float) -> None:
    """Return when a healthy instance can be called, at the latest after `timeout` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout), aclosing(client.resolver(service).watch()) as views:
            async for view in views:
                selection = select_endpoints(view.endpoints, options)
                if not selection.endpoints or selection.is_panicking:
                    continue
                if view.origin is ViewOrigin.LIVE or await _is_unresponsive(client, service):
                    return


async def _is_unresponsive(client: Client, service: str) -> bool:
    """Returns whether the registry does not answer at all; then a cached view is the best one available.

    A registry that refuses connections is not unresponsive: it may be starting.
    """
    with suppress(NeedsRegistry, RegistryUnavailable):
        try:
            async with asyncio.timeout(client.source.cache_fallback_delay):
                await client.api.service(service)
        except TimeoutError:
            return True
    return False


async def _read_service(client: Client, service: str) -> wire.ServiceView:
    """Returns the service as the registry lists it, or the view cached on this host if no answer comes soon."""
    resolver = client.resolver(service)
    request = asyncio.ensure_future(_request_service(client, service))
    fallback = asyncio.ensure_future(_wait_for_cached_view(resolver))
    try:
        await asyncio.wait((request, fallback), return_when=asyncio.FIRST_COMPLETED)
        # The resolver's watch may fail although the request succeeds.
        await asyncio.wait((request,), timeout=client.source.cache_fallback_delay)
        if not request.done() and resolver.view.endpoints:
            raise RegistryUnavailable(resolver.problem)
        return await request
    except RegistryUnavailable as error:
        resolver.use_cached_view()
        if not resolver.view.endpoints:
            raise
        warning = f" ({resolver.view_warning})" if resolver.view_warning else ""
        age = output.format_duration(resolver.view.age())
        output.print_message(f"{error}; using the view cached {age} ago{warning}")
        return _to_wire(resolver.view)
    finally:
        request.cancel()
        fallback.cancel()
        await asyncio.gather(request, fallback, return_exceptions=True)


async def _wait_for_cached_view(resolver: Resolver) -> None:
    """Return when the resolver shows the cached view because no registry answers."""
    async with aclosing(resolver.watch()) as views:
        async for view in views:
            if view.origin is ViewOrigin.DISK:
                return
    await asyncio.Event().wait()


async def _request_service(client: Client, service: str) -> wire.ServiceView:
    """Returns the service as the registry, etcd or Consul lists it. Raises `RegistryUnavailable`."""
    try:
        return await client.api.service(service)
    except NeedsRegistry:
        return _to_wire(await _first_view(client, service))


async def _first_view(client: Client, service: str) -> View:
    """Returns the first view that the client's source reports. Raises `RegistryUnavailable`."""
    resolver = client.resolver(service)
    with suppress(TimeoutError):
        async with asyncio.timeout(SOURCE_TIMEOUT), aclosing(resolver.watch()) as views:
            async for view in views:
                if resolver.connected:
                    return view
    raise RegistryUnavailable(resolver.problem or "no answer in time")


async def _unknown_service(client: Client, service: str) -> str:
    try:
        return unknown_service(service, [listed.name for listed in (await client.api.services()).services])
    except NeedsRegistry:
        return f"no instance of {service!r} is listed"


def _to_wire(view: View) -> wire.ServiceView:
    instances = [_instance_view(endpoint) for endpoint in view.endpoints]
    return wire.ServiceView(view.epoch, view.service, view.revision, instances)


def _instance_view(endpoint: Endpoint) -> wire.InstanceView:
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


def _describe_statuses(view: wire.ServiceView) -> str:
    """Returns the status and cause of each instance if they are few, else the number of instances by status."""
    if len(view.instances) <= MAX_INSTANCES_NAMED:
        return "; ".join(
            f"{instance.id} is {instance.status} "
            f"({output.format_cause(instance.cause, instance.actor, instance.reason, claimed=instance.claimed)})"
            for instance in view.instances
        )
    statuses = [instance.status for instance in view.instances]
    return ", ".join(f"{statuses.count(status)} {status}" for status in _STATUS_ORDER if status in statuses)


_FORMATTERS: Final[Mapping[str, Callable[[Endpoint], str]]] = MappingProxyType(
    {
        "address": lambda endpoint: endpoint.authority,
        "url": lambda endpoint: endpoint.url,
        "host": lambda endpoint: endpoint.address,
        "port": lambda endpoint: str(endpoint.port),
    }
)
