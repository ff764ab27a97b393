"""The command `adsum ls`."""

from __future__ import annotations

from typing import Final

import click

from adsum import wire
from adsum.cli import output
from adsum.cli.arguments import ServiceType, json_option, unknown_service
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.client import ClientConfig
from adsum.core.addresses import format_host_port
from adsum.core.model import Status

_STATUS_ORDER: Final = tuple(Status)


@click.command(epilog="Examples: adsum ls; adsum ls orders --status critical; adsum ls orders --json | jq .instances")
@click.argument("service", required=False, type=ServiceType())
@click.option(
    "--status",
    multiple=True,
    type=click.Choice([status.value for status in Status]),
    help="Only instances with this status.",
)
@click.option("--tag", multiple=True, metavar="TEXT", help="Only instances with this tag.")
@click.option("--in-zone", metavar="TEXT", help="Only instances in this zone.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Only instances with this metadata.")
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
    """List all services, or the instances of SERVICE with their status, its cause, and since when it holds.

    --json prints the response of GET /api/v1/services or /api/v1/services/SERVICE. The exit code is 3 if SERVICE has no
    instance.
    """
    if service is None:
        _print_services(run_with_client(loaded, lambda client: client.api.services()), as_json)
        return
    pairs = _parse_pairs(metadata)

    async def work(client: Client) -> tuple[wire.ServiceView, list[str]]:
        view = await client.api.service(service, status=status, tag=tag, zone=in_zone, metadata=pairs)
        names = [] if view.instances else [listed.name for listed in (await client.api.services()).services]
        return view, names

    view, names = run_with_client(loaded, work)
    if as_json:
        output.print_json(view)
    elif view.instances:
        output.print_table(
            ("ID", "ADDRESS", "STATUS", "SINCE", "CAUSE", "ZONE", "WEIGHT", "TAGS"),
            [_row(instance) for instance in view.instances],
        )
    if not view.instances and service in names and (status or tag or in_zone or metadata):
        output.print_message(f"no instance of {service} matches")
    elif not view.instances:
        raise CommandFailed(ExitCode.NOT_FOUND, unknown_service(service, names))


def _print_services(listed: wire.ServiceList, as_json: bool) -> None:
    if as_json:
        output.print_json(listed)
    elif listed.services:
        statuses = [
            status for status in _STATUS_ORDER if any(status in service.status_counts for service in listed.services)
        ]
        rows = [
            (
                service.name,
                str(service.instances),
                *(str(service.status_counts.get(status, "") or "") for status in statuses),
            )
            for service in listed.services
        ]
        output.print_table(("SERVICE", "INSTANCES", *(status.upper() for status in statuses)), rows)
    else:
        output.print_message("the registry is empty; `adsum run --help` shows how to register an instance")


def _row(instance: wire.InstanceView) -> tuple[str, ...]:
    return (
        instance.id,
        format_host_port(instance.address, instance.port),
        instance.status,
        output.ago(instance.since),
        output.format_cause(instance.cause, instance.actor, instance.reason, claimed=instance.claimed),
        instance.zone,
        str(instance.weight) if instance.weight != 1 else "",
        ", ".join(instance.tags),
    )


def _parse_pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"must be KEY=VALUE, not {text!r}", param_hint="--metadata")
        pairs[key] = value
    return pairs
