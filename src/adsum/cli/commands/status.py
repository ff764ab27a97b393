"""The commands of operators: drain, maintenance, resume, forget, history, status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click
import msgspec

from adsum import wire
from adsum.cli import empty_targets, output
from adsum.cli.arguments import DurationType, InstanceRef, ServiceType, json_option, reason_option, unknown_service
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.instance_selector import for_each_instance
from adsum.cli.settings.flags import UNUSED_BY_READS, UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.client.errors import AnswerLost, InstanceForgotten
from adsum.client.native.waiting_request import ROUND_PAUSE
from adsum.config.client import ClientConfig
from adsum.core.errors import UnknownInstance
from adsum.core.model import MAX_OVERRIDE
from adsum.core.sizes import format_size

MAX_ROWS_SHOWN: Final = 20
"""The most services, and the most consumers, that are printed for people; --json prints more."""
CERTIFICATE_WARNING: Final = 14 * 86_400.0
"""Seconds before its expiry from which on the certificate of a gateway is reported."""

_ANSWERED: Final = ("REQUESTS", "ERRORS", "P50", "P99")
_for = click.option(
    "--for", "length", type=DurationType(1.0, MAX_OVERRIDE), help="End it automatically after this time."
)


def _mark(loaded: Settings, keys: Sequence[InstanceRef], options: Mapping[str, Any]) -> None:
    """Start to drain all instances before waiting for any, so that no call moves from one of them to the next."""
    body = wire.OverrideBody("draining", options["reason"], options["length"])

    async def work(client: Client) -> None:
        for key in keys:
            with suppress(UnknownInstance):  # It has left meanwhile.
                await client.api.override(key.service, key.id, body)

    run_with_client(loaded, work)


@click.command(
    epilog="Examples: adsum drain orders/web1 --reason 'deploy 1.4' && systemctl stop orders; "
    "adsum drain --at 10.0.0.7 --reason 'new disks'"
)
@click.option(
    "--wait/--no-wait", default=True, help="Wait until no consumer calls the instance any more.  [default: wait]"
)
@click.option(
    "--timeout",
    type=DurationType(0.0, wire.MAX_WAIT),
    default="30",
    help="Longest wait, for all instances together.  [default: 30 s]",
)
@_for
@reason_option("Why it is drained")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance(_mark)
def drain(
    loaded: Settings, key: InstanceRef, wait: bool, timeout: float, length: float | None, reason: str, as_json: bool
) -> None:
    """Stop calls to an instance, and wait until they have stopped.

    When the exit code is 0, every cooperating consumer has confirmed that it no longer calls the instance. You can stop
    the instance without losing a request. If consumers have not confirmed in time, the command names them, the exit
    code is 124, and the instance stays draining. `adsum resume` ends the drain.

    A consumer that has been silent for some 8 s is lost: the command names it, but does not wait for it. If the
    registry restarts meanwhile, the command repeats the request when it is back.

    --json prints the response of PUT /api/v1/services/SERVICE/instances/ID/override, also when the exit code is 124.
    """
    wait = wait and timeout > 0.0
    body = wire.OverrideBody("draining", reason, length, wait=timeout if wait else 0.0)
    try:
        written = run_with_client(loaded, lambda client: _drained(client, key, body))
    except AnswerLost as error:
        raise CommandFailed(
            ExitCode.TIMEOUT,
            f"the drain of {key} was requested, but its result is unknown: {error.reason}",
        ) from None
    if as_json:
        output.print_json(written)
    if wait and written.unacknowledged:
        raise CommandFailed(ExitCode.TIMEOUT, "\n".join([_unconfirmed(key, written, timeout), *_lost(written)]))
    if as_json:
        return
    output.print_message(f"{key} is draining" + ("; no cooperating consumer calls it any more" if wait else ""))
    for line in _lost(written):
        output.print_message(line)


async def _drained(client: Client, key: InstanceRef, body: wire.OverrideBody) -> wire.WriteResult:
    """Request a drain and return the response.

    If the registry restarted and lost its state, the request is repeated once the program has registered again, which
    it does at its next renewal. Raises `CommandFailed` if it does not within the wait.
    """
    now = asyncio.get_running_loop().time
    left, ends, forgotten = body.wait, now() + body.wait, False
    while True:
        try:
            return await client.api.override(key.service, key.id, msgspec.structs.replace(body, wait=left))
        except UnknownInstance as error:
            forgotten = forgotten or isinstance(error, InstanceForgotten)
            if not forgotten or (await client.api.changes(key.service, key.id, 1)).changes:
                raise
        if now() + ROUND_PAUSE >= ends:
            raise CommandFailed(
                ExitCode.NOT_FOUND,
                f"{key} is not listed any more: the registry restarted and lost its state, and the program has not "
                f"registered again within {body.wait:g} s",
            )
        await asyncio.sleep(ROUND_PAUSE)
        left = ends - now()


def _unconfirmed(key: InstanceRef, written: wire.WriteResult, timeout: float) -> str:
    consumers = "1 consumer has" if written.unacknowledged == 1 else f"{written.unacknowledged} consumers have"
    said = f"{key} is draining, but {consumers} not confirmed within {timeout:g} s that they no longer call it:"
    return "\n".join([said, *_consumers(written.waiting, written.unacknowledged)])


def _lost(written: wire.WriteResult) -> list[str]:
    """Returns a line for each consumer that the drain did not wait for."""
    if not written.lost:
        return []
    said = "lost, and not waited for (silent for too long):"
    return [said, *_consumers(written.lost, written.lost_count)]


def _consumers(views: Sequence[wire.ConsumerView], count: int) -> list[str]:
    """Returns a line for each of the consumers shown; there are `count` in all."""
    lines = [f"  {_who(each)}: {each.reason}" for each in views[:MAX_ROWS_SHOWN]]
    return lines + ([f"  and {count - len(lines)} more"] if count > len(lines) else [])


def _who(view: wire.ConsumerView) -> str:
    address = f" at {view.address}" if view.address else ""
    known = f" (known to {view.node})" if view.node and view.node != view.name else ""
    return f"{view.name or 'an unnamed consumer'}{address}{known}"


@click.command(epilog="Example: adsum maintenance orders/web1 --for 1h --reason 'new disks'")
@_for
@reason_option("Reason of the maintenance")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance()
def maintenance(loaded: Settings, key: InstanceRef, length: float | None, reason: str, as_json: bool) -> None:
    """Take an instance out of use for some time.

    It stays listed with the author and the reason, and its checks go on. It is not called until `adsum resume`, or
    until the time of --for is over. After a restart of the registry, the time of --for starts again.

    --json prints the response of PUT /api/v1/services/SERVICE/instances/ID/override.
    """
    body = wire.OverrideBody("maintenance", reason, length)
    written = run_with_client(loaded, lambda client: client.api.override(key.service, key.id, body))
    if as_json:
        output.print_json(written)
        return
    until = f" for {output.format_duration(length)}" if length else " until it is resumed"
    output.print_message(f"{key} is in maintenance{until}")


@click.command(epilog="Example: adsum resume orders/web1")
@reason_option("Why it is back")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance()
def resume(loaded: Settings, key: InstanceRef, reason: str, as_json: bool) -> None:
    """End a drain or maintenance: the lease and the checks of the instance decide again whether it is called.

    The command prints the new status of the instance. --json prints the response of DELETE
    /api/v1/services/SERVICE/instances/ID/override.
    """

    async def work(client: Client) -> tuple[wire.WriteResult, wire.InstanceDetail]:
        written = await client.api.resume(key.service, key.id, reason=reason)
        return written, await client.api.instance(key.service, key.id)

    written, detail = run_with_client(loaded, work)
    if as_json:
        output.print_json(written)
    else:
        output.print_message(f"{key} is {detail.instance.status}")


@click.command(epilog="Example: adsum forget orders --reason 'renamed to order-service'")
@click.argument("service", type=ServiceType())
@reason_option("Why it is forgotten")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def forget(loaded: Settings, service: str, reason: str, as_json: bool) -> None:
    """Remove a service without instances from the lists.

    The service disappears from `adsum ls`, status, metrics and gateways, on every node; its history stays. A service
    that stays empty is forgotten automatically after a day (`adsum serve --forget-after`). A service with instances is
    refused; remove them with `adsum deregister` first.

    --json prints the response of DELETE /api/v1/services/SERVICE.
    """
    written = run_with_client(loaded, lambda client: client.api.forget(service, reason=reason))
    if as_json:
        output.print_json(written)
    else:
        output.print_message(f"{service} is forgotten")


@click.command(epilog="Examples: adsum history orders; adsum history orders/web1 --limit 5 --json")
@click.argument("key", metavar="SERVICE[/ID]", type=ServiceType(with_id=True))
@click.option("--limit", type=click.IntRange(1, wire.MAX_HISTORY), default=20, help="How many.  [default: 20]")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def history(loaded: Settings, key: InstanceRef, limit: int, as_json: bool) -> None:
    """Show why instances were added, changed and removed, the newest change first.

    Start here if an instance is missing. Every change has a recorded cause and actor, such as a lease that expired, a
    check that failed, a person, or a program that exited with code 3. For routes see `adsum route history`.

    --json prints the response of GET /api/v1/changes.
    """
    found = run_with_client(loaded, lambda client: client.api.changes(key.service, key.id, limit))
    if as_json:
        output.print_json(found)
    elif found.changes:
        output.print_table(("TIME", "AGO", "INSTANCE", "STATUS", "WHY"), [_change(change) for change in found.changes])
    if not found.changes:
        known = run_with_client(loaded, lambda client: client.api.services())
        names = [each.name for each in known.services]
        there = f"no change of {key} is recorded"
        raise CommandFailed(
            ExitCode.NOT_FOUND, there if key.service in names else f"{there}: {unknown_service(key.service, names)}"
        )


def _change(change: wire.ChangeView) -> tuple[str, ...]:
    return (
        output.time_of_day(change.at),
        output.ago(change.at),
        f"{change.service}/{change.id}" if change.id else change.service,
        change.status or "gone",
        output.format_cause(change.cause, change.actor, change.reason, change.peer),
    )


@click.command(epilog="Example: adsum status --json")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def status(loaded: Settings, as_json: bool) -> None:
    """Show the state of the registry node that answers.

    REQUESTS and ERRORS (5xx) count what callers got from the gateways connected to this node, since each gateway
    started. A request counts once, however often it was tried. P50 and P99 are the latencies of the last minute or two,
    to within a bucket of Envoy's histogram.

    DEPARTED lists gateways whose stream to this node ended in the last ten minutes. Such a gateway has stopped, is
    connected to another node, or reaches none and serves with its last configuration; /readyz of its --monitor reports
    the last case. REFUSED lists clients whose stream this node ended, and why.

    The exit code is 75 while the node is not ready. --json prints the response of GET /api/v1/status.
    """

    async def work(client: Client) -> tuple[wire.NodeStatus, Sequence[wire.RouteView]]:
        found = await client.api.status()
        return found, (await client.api.routes()).routes if found.ready and not as_json else []

    node, routes = run_with_client(loaded, work)
    if as_json:
        output.print_json(node)
    else:
        empty = [("empty", each, "") for each in empty_targets.messages(routes)]
        output.print_table(("", "", "STATUS"), [*_standing(node), *empty])
        if node.peers:
            output.print_line("")
            output.print_table(("NODE", "AT", "KEEPS"), _nodes(node))
        if node.gateways:
            output.print_line("")
            output.print_table(("GATEWAY", "CLIENT", "SINCE", "REVISION", *_ANSWERED, "TROUBLE"), _gateways(node))
        if node.gateways_disconnected:
            output.print_line("")
            output.print_table(("DEPARTED", "CLIENT", "FROM", "AWAY FOR", "REVISION"), _departed(node))
        if node.refused_streams:
            output.print_line("")
            output.print_table(("REFUSED", "FROM", "LAST", "TIMES", "WHY"), _refused(node))
        if node.traffic:
            output.print_line("")
            output.print_table(
                ("SERVICE", *_ANSWERED), [(each.service, *_answered(each)) for each in node.traffic[:MAX_ROWS_SHOWN]]
            )
        if len(node.traffic) > MAX_ROWS_SHOWN:
            output.print_message(f"and {len(node.traffic) - MAX_ROWS_SHOWN} more services; --json prints them")
    if not node.ready:
        raise CommandFailed(ExitCode.TRY_AGAIN, f"{node.node} is not ready: {node.unready_reason}")


def _standing(node: wire.NodeStatus) -> list[tuple[str, str, str]]:
    stand = ", ".join(f"{count} {status}" for status, count in sorted(node.status_counts.items())) or "none"
    late = f"; {node.checks_overdue} overdue, {node.check_lag:.1f} s late" if node.checks_overdue else ""
    lapsed = f"; {node.leases_lapsed} lapsed" if node.leases_lapsed else ""
    rows = [
        ("node", f"{node.node}, version {node.version}, {'ready' if node.ready else 'not ready'}"),
        ("up", output.format_duration(node.uptime)),
        ("store", node.store),
        *node.store_condition.items(),
        ("catalog", f"epoch {node.epoch}, revision {node.revision}, {node.age:.1f} s old"),
        ("services", str(node.services)),
        ("instances", f"{node.instances} ({stand})" if node.instances else "0"),
        ("memory", f"{format_size(node.catalog_bytes)} of {format_size(node.catalog_max_bytes)} for registrations"),
        ("leases", f"{node.leases}{lapsed}"),
        ("checks", f"{node.checks}{late}"),
        ("watches", str(node.watches)),
        ("consumers", _consumer_counts(node)),
    ]
    rows += [("guarded", f"{service}: {count} expiries held back") for service, count in sorted(node.guards.items())]
    return [(name, value, "") for name, value in rows]


def _consumer_counts(node: wire.NodeStatus) -> str:
    departed = f"; {node.consumers_departed} left without a good-bye" if node.consumers_departed else ""
    lost = f"; {node.consumers_lost} lost" if node.consumers_lost else ""
    return f"{node.consumers}{departed}{lost}"


def _nodes(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Returns a row for every node of the registry with its share, this node first."""
    everything = sum(peer.shards for peer in node.peers) + node.shards
    nodes = [(f"{node.node} (this one)", "", node.shards), *((each.node, each.url, each.shards) for each in node.peers)]
    if node.isolated_seconds and not node.shards:  # Other nodes have taken over, and this node can't know which.
        return [(name, url, "unknown" if url else "nothing") for name, url, _ in nodes]
    return [(name, url, f"{share / max(1, everything):.0%}") for name, url, share in nodes]


def _gateways(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    return [
        (
            each.node or each.peer,
            each.client,
            output.ago(each.since),
            str(each.revision),
            *_answered(each),
            "; ".join((*(f"{kind}: {words}" for kind, words in sorted(each.rejections.items())), *_certificate(each))),
        )
        for each in node.gateways
    ]


def _certificate(gateway: wire.GatewayView) -> list[str]:
    """Returns the warning about a gateway's certificate, if there is one."""
    left = gateway.certificate_expires - time.time()
    if not gateway.certificate_expires or left > CERTIFICATE_WARNING:
        return []
    return [f"its certificate expires in {output.format_duration(left)}" if left > 0 else "its certificate has expired"]


def _departed(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Returns a row for each gateway that is no longer connected to this node."""
    return [
        (each.node, each.client, each.peer, output.format_duration(each.disconnected_seconds), str(each.revision))
        for each in node.gateways_disconnected
    ]


def _refused(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Returns a row for each client whose stream this node ended lately."""
    return [
        (each.node or "(unnamed)", each.peer, output.ago(each.at), str(each.count), f"{each.code}: {each.reason}")
        for each in node.refused_streams
    ]


def _answered(each: wire.GatewayView | wire.TrafficView) -> tuple[str, ...]:
    if not each.requests:
        return ("", "", "", "")
    p50, p99 = (output.format_latency(length) if length else "" for length in (each.p50, each.p99))
    return (str(each.requests), str(each.errors), p50, p99)
