"""The command `adsum status`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import click

from adsum import wire
from adsum.cli import empty_targets, output
from adsum.cli.arguments import json_option
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import UNUSED_BY_READS, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.client import ClientConfig
from adsum.core.sizes import format_size

MAX_SERVICES_SHOWN: Final = 20
"""The most services whose traffic is printed for people; --json prints all of them."""
CERTIFICATE_WARNING: Final = 14 * 86_400.0
"""Seconds before its expiry from which on the certificate of a gateway is reported."""

SECURITY_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "loopback": "only this host reaches it",
        "secure": "TLS and tokens",
        "insecure": "INSECURE (--insecure): whoever reaches it may change everything",
    }
)
"""How a node is protected, for people."""

_TRAFFIC_COLUMNS: Final = ("REQUESTS", "ERRORS", "P50", "P99")


@click.command(epilog="Example: adsum status --json")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def status(loaded: Settings, as_json: bool) -> None:
    """Show the state of the registry node that answers.

    `security` is how the node is protected, and `certificate` when each of its certificates expires.

    REQUESTS and ERRORS (5xx) count what callers got from the gateways connected to this node, since each gateway
    started. A request counts once, however often it was tried. P50 and P99 are the latencies of the last minute or two,
    to within a bucket of Envoy's histogram.

    DISCONNECTED lists gateways whose stream to this node ended in the last ten minutes. Such a gateway has stopped, is
    connected to another node, or reaches none and serves with its last configuration; /readyz of its --monitor reports
    the last case. REFUSED lists clients whose stream this node ended, and the reason.

    The exit code is 75 while the node is not ready. --json prints the response of GET /api/v1/status.
    """

    async def work(client: Client) -> tuple[wire.NodeStatus, Sequence[wire.RouteView]]:
        node = await client.api.status()
        return node, (await client.api.routes()).routes if node.ready and not as_json else []

    node, routes = run_with_client(loaded, work)
    if as_json:
        output.print_json(node)
    else:
        empty = [("empty", message, "") for message in empty_targets.messages(routes)]
        output.print_table(("", "", "STATUS"), [*_node_rows(node), *empty])
        if node.peers:
            output.print_line("")
            output.print_table(("NODE", "URL", "SHARE"), share_rows(node))
        if node.gateways:
            output.print_line("")
            columns = ("GATEWAY", "CLIENT", "SINCE", "REVISION", *_TRAFFIC_COLUMNS, "PROBLEMS")
            output.print_table(columns, _gateway_rows(node))
        if node.gateways_disconnected:
            output.print_line("")
            output.print_table(("DISCONNECTED", "CLIENT", "ADDRESS", "FOR", "REVISION"), _disconnected_rows(node))
        if node.refused_streams:
            output.print_line("")
            output.print_table(("REFUSED", "ADDRESS", "LAST", "COUNT", "REASON"), _refused_rows(node))
        if node.traffic:
            output.print_line("")
            rows = [(traffic.service, *_traffic_cells(traffic)) for traffic in node.traffic[:MAX_SERVICES_SHOWN]]
            output.print_table(("SERVICE", *_TRAFFIC_COLUMNS), rows)
        if len(node.traffic) > MAX_SERVICES_SHOWN:
            output.print_message(f"and {len(node.traffic) - MAX_SERVICES_SHOWN} more services; --json prints them")
    if not node.ready:
        raise CommandFailed(ExitCode.TRY_AGAIN, f"{node.node} is not ready: {node.unready_reason}")


def _node_rows(node: wire.NodeStatus) -> list[tuple[str, str, str]]:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(node.status_counts.items())) or "none"
    late = f"; {node.checks_overdue} overdue, {node.check_lag:.1f} s late" if node.checks_overdue else ""
    lapsed = f"; {node.leases_lapsed} lapsed" if node.leases_lapsed else ""
    rows = [
        ("node", f"{node.node}, version {node.version}, {'ready' if node.ready else 'not ready'}"),
        ("uptime", output.format_duration(node.uptime)),
        *_security_rows(node),
        ("store", node.store),
        *node.store_condition.items(),
        ("catalog", f"epoch {node.epoch}, revision {node.revision}, {node.age:.1f} s old"),
        ("services", str(node.services)),
        ("instances", f"{node.instances} ({counts})" if node.instances else "0"),
        ("memory", f"{format_size(node.catalog_bytes)} of {format_size(node.catalog_max_bytes)} for registrations"),
        ("leases", f"{node.leases}{lapsed}"),
        ("checks", f"{node.checks}{late}"),
        ("watches", str(node.watches)),
        ("consumers", _consumer_counts(node)),
    ]
    rows += [("guarded", f"{service}: {count} expiries held back") for service, count in sorted(node.guards.items())]
    return [(name, value, "") for name, value in rows]


def _security_rows(node: wire.NodeStatus) -> list[tuple[str, str]]:
    """Returns how the node is protected, and when its certificates expire."""
    rows = [("security", SECURITY_TEXTS.get(node.security, node.security))] if node.security else []
    now = time.time()
    for certificate in node.certificates:
        remaining = certificate.expires - now
        state = f"expires in {output.format_duration(remaining)}" if remaining > 0 else "has expired"
        rows.append(
            (f"certificate {certificate.name}", f"{state}{', renewed by itself' if certificate.renews else ''}")
        )
    return rows


def _consumer_counts(node: wire.NodeStatus) -> str:
    departed = f"; {node.consumers_departed} left without a good-bye" if node.consumers_departed else ""
    lost = f"; {node.consumers_lost} lost" if node.consumers_lost else ""
    return f"{node.consumers}{departed}{lost}"


def share_rows(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Returns a row for every node of the registry with its share of the services, this node first."""
    shards = sum(peer.shards for peer in node.peers) + node.shards
    nodes = [(f"{node.node} (this one)", "", node.shards), *((peer.node, peer.url, peer.shards) for peer in node.peers)]
    if node.isolated_seconds and not node.shards:  # Other nodes have taken over, and this node can't know which.
        return [(name, url, "unknown" if url else "nothing") for name, url, _ in nodes]
    return [(name, url, f"{share / max(1, shards):.0%}") for name, url, share in nodes]


def _gateway_rows(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    return [
        (
            gateway.node or gateway.peer,
            gateway.client,
            output.ago(gateway.since),
            str(gateway.revision),
            *_traffic_cells(gateway),
            "; ".join(_gateway_problems(gateway)),
        )
        for gateway in node.gateways
    ]


def _gateway_problems(gateway: wire.GatewayView) -> list[str]:
    """Returns the resources that a gateway rejects, and a warning if its certificate expires soon."""
    problems = [f"{kind}: {reason}" for kind, reason in sorted(gateway.rejections.items())]
    remaining = gateway.certificate_expires - time.time()
    if gateway.certificate_expires and remaining <= 0:
        problems.append("its certificate has expired")
    elif gateway.certificate_expires and remaining <= CERTIFICATE_WARNING:
        problems.append(f"its certificate expires in {output.format_duration(remaining)}")
    return problems


def _disconnected_rows(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Returns a row for each gateway that is no longer connected to this node."""
    return [
        (
            gateway.node,
            gateway.client,
            gateway.peer,
            output.format_duration(gateway.disconnected_seconds),
            str(gateway.revision),
        )
        for gateway in node.gateways_disconnected
    ]


def _refused_rows(node: wire.NodeStatus) -> list[tuple[str, ...]]:
    """Returns a row for each client whose stream this node ended lately."""
    return [
        (
            client.node or "(unnamed)",
            client.peer,
            output.ago(client.at),
            str(client.count),
            f"{client.code}: {client.reason}",
        )
        for client in node.refused_streams
    ]


def _traffic_cells(traffic: wire.GatewayView | wire.TrafficView) -> tuple[str, ...]:
    if not traffic.requests:
        return ("", "", "", "")
    p50, p99 = (output.format_latency(latency) if latency else "" for latency in (traffic.p50, traffic.p99))
    return (str(traffic.requests), str(traffic.errors), p50, p99)
