"""Commands that operators use: drain, maintenance, resume, forget, history, status."""

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
from adsum.config.serve import ClientConfig
from adsum.core.errors import UnknownInstance
from adsum.core.model import MAX_OVERRIDE
from adsum.core.sizes import format_size

MAX_ROWS_SHOWN: Final = 20
"""Services whose traffic, and consumers whose names, people are shown; programs are told more."""
CERTIFICATE_WARNING: Final = 14 * 86_400.0
"""Seconds before a gateway's certificate expires from which on people are told."""

_ANSWERED: Final = ("REQUESTS", "ERRORS", "P50", "P99")
_for = click.option("--for", "length", type=DurationType(1.0, MAX_OVERRIDE), help="End it by itself after so long.")


def _mark(loaded: Settings, keys: Sequence[InstanceRef], options: Mapping[str, Any]) -> None:
    """Have all of them drain before any is waited for: no call goes from one of them to the next."""
    body = wire.OverrideBody("draining", options["reason"], options["length"])

    async def work(client: Client) -> None:
        for key in keys:
            with suppress(UnknownInstance):  # It left meanwhile.
                await client.api.override(key.service, key.id, body)

    run_with_client(loaded, work)


@click.command(
    epilog="Examples: adsum drain orders/web1 --reason 'deploy 1.4' && systemctl stop orders; "
    "adsum drain --at 10.0.0.7 --reason 'new disks'"
)
@click.option("--wait/--no-wait", default=True, help="Return when nobody calls it any more.  [default: wait]")
@click.option(
    "--timeout",
    type=DurationType(0.0, wire.MAX_WAIT),
    default="30",
    help="Wait at most so long, for all instances.  [default: 30 s]",
)
@_for
@reason_option("Why it is drained")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance(_mark)
def drain(
    loaded: Settings, key: InstanceRef, wait: bool, timeout: float, length: float | None, reason: str, as_json: bool
) -> None:
    """Have an instance called no more, then return.

    When this returns 0, every cooperating consumer has said that it routes around the instance: it can be stopped
    without losing a request, and no shut-down hook has to sleep. If some have not said so in time, they are named, the
    exit code is 124, and the instance stays draining. `adsum resume` takes it back.

    A consumer of which nothing was heard for some 8 s is lost: it is named, and not waited for. A registry that
    restarts meanwhile is asked again when it is back.

    --json prints the answer of PUT /api/v1/services/SERVICE/instances/ID/override, also when the exit code is 124.
    """
    wait = wait and timeout > 0.0
    body = wire.OverrideBody("draining", reason, length, wait=timeout if wait else 0.0)
    try:
        written = run_with_client(loaded, lambda client: _drained(client, key, body))
    except AnswerLost as error:
        raise CommandFailed(
            ExitCode.TIMEOUT,
            f"{key} was told to drain; whether it drains, and whether consumers know, could not be asked: {error.reason}",
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
    """The answer to a drain. Of a registry that came back without its state, the drain is asked again when the program
    has registered again, which it does at its next renewal. Raises `CommandFailed` if it does not within the wait.
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
    said = f"{key} is draining, but {consumers} not confirmed within {timeout:g} s that they call it no more:"
    return "\n".join([said, *_consumers(written.waiting, written.unacknowledged)])


def _lost(written: wire.WriteResult) -> list[str]:
    """The consumers that were not waited for, a line each."""
    if not written.lost:
        return []
    said = "lost, and not waited for (nothing has been heard of them for too long):"
    return [said, *_consumers(written.lost, written.lost_count)]


def _consumers(views: Sequence[wire.ConsumerView], count: int) -> list[str]:
    """A line for each of some consumers, `count` in all."""
    lines = [f"  {_who(each)}: {each.reason}" for each in views[:MAX_ROWS_SHOWN]]
    return lines + ([f"  and {count - len(lines)} more"] if count > len(lines) else [])


def _who(view: wire.ConsumerView) -> str:
    address = f" at {view.address}" if view.address else ""
    known = f" (known to {view.node})" if view.node and view.node != view.name else ""
    return f"{view.name or 'a consumer without a name'}{address}{known}"


@click.command(epilog="Example: adsum maintenance orders/web1 --for 1h --reason 'new disks'")
@_for
@reason_option("What is being done")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance()
def maintenance(loaded: Settings, key: InstanceRef, length: float | None, reason: str, as_json: bool) -> None:
    """Take an instance out of use for a while.

    It stays listed, with who took it out and why, and its checks go on; nobody calls it until `adsum resume`, or until
    the time given by --for is over. A restart of the registry starts that time afresh: late is better than wrong.

    --json prints the answer of PUT /api/v1/services/SERVICE/instances/ID/override.
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
    """End a drain or a maintenance: lease and checks decide again whether the instance is called.

    It prints the status that the instance has then. --json prints the answer of DELETE
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
    """Take a service without an instance off the lists.

    It leaves `adsum ls`, status, metrics and gateways, on every node; its history stays. Services that stay empty do so
    by themselves after a day (`adsum serve --forget-after`). One with instances is refused: `adsum deregister` takes
    those out.

    --json prints the answer of DELETE /api/v1/services/SERVICE.
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
    """Show why instances came and went, the newest change first.

    No instance leaves the catalog without a recorded cause and actor: a lease that expired, a check that failed, a
    person, a program that ended with code 3. This is where to look first when something is missing. What became of
    routes: `adsum route history`.

    --json prints the answer of GET /api/v1/changes.
    """
    found = run_with_client(loaded, lambda client: client.api.changes(key.service, key.id, limit))
    if as_json:
        output.print_json(found)
    elif found.changes:
        output.print_table(("TIME", "AGO", "INSTANCE", "STATUS", "WHY"), [_change(change) for change in found.changes])
    if not found.changes:
        known = run_with_client(loaded, lambda client: client.api.services())
        names = [each.name for each in known.services]
        there = f"nothing is recorded of {key}"
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
    """Show how the registry node that answers fares: what it keeps, and whether it keeps up.

    REQUESTS and ERRORS (5xx) are what callers got from the gateways that this node tells what to do, since each of them
    began: a request counts once, however often it was tried. P50 and P99 are how long those of the
    last minute or two took, to within a bucket of Envoy's histogram.

    DEPARTED are gateways whose stream to this node ended within ten minutes: they ended, or talk to another node, or
    hear none and go on with what they know (--monitor of the gateway has /readyz, which says so). REFUSED are clients
    whose stream this node ended, and why.

    Exits with 75 while the node is not ready. --json prints the answer of GET /api/v1/status.
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
            output.print_message(f"and {len(node.traffic) - MAX_ROWS_SHOWN} services more: --json tells them")
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
    """Every node of the registry and its share, this one first."""
    everything = sum(peer.shards for peer in node.peers) + node.shards
    nodes = [(f"{node.node} (this one)", "", node.shards), *((each.node, each.url, each.shards) for each in node.peers)]
    if node.isolated_seconds and not node.shards:  # By now others have it, and we are not told who.
        return [(name, url, "not known now" if url else "nothing") for name, url, _ in nodes]
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
    """What there is to say of the certificate that it shows."""
    left = gateway.certificate_expires - time.time()
    if not gateway.certificate_expires or left > CERTIFICATE_WARNING:
        return []
    return [f"its certificate expires in {output.format_duration(left)}" if left > 0 else "its certificate has expired"]


def _departed(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Gateways that the node does not keep informed any more."""
    return [
        (each.node, each.client, each.peer, output.format_duration(each.disconnected_seconds), str(each.revision))
        for each in node.gateways_disconnected
    ]


def _refused(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Clients whose streams the node ended of late."""
    return [
        (each.node or "(unnamed)", each.peer, output.ago(each.at), str(each.count), f"{each.code}: {each.reason}")
        for each in node.refused_streams
    ]


def _answered(each: wire.GatewayView | wire.TrafficView) -> tuple[str, ...]:
    if not each.requests:
        return ("", "", "", "")
    p50, p99 = (output.format_latency(length) if length else "" for length in (each.p50, each.p99))
    return (str(each.requests), str(each.errors), p50, p99)
