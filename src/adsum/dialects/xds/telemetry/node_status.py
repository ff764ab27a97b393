"""The part of a node's status that xDS fills: gateways, refused streams, and traffic by service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from adsum import wire

if TYPE_CHECKING:
    from adsum.dialects.xds.telemetry.client_status import StreamStatus
    from adsum.dialects.xds.xds import Xds

MAX_GATEWAYS_LISTED: Final = 200
"""Gateways and gRPC clients in a status; those that reject something are listed first, and the rest is left out."""
MAX_SERVICES_LISTED: Final = 1_000
"""Services whose traffic is in a status; those with the most errors are listed first, and the rest is left out."""


def node_status(xds: Xds) -> Mapping[str, Any]:
    """Returns the fields of `wire.NodeStatus` that xDS fills, by name."""
    return {
        "gateways": _gateways(xds),
        "gateways_disconnected": _disconnected_gateways(xds),
        "refused_streams": _refused_streams(xds),
        "traffic": _traffic(xds),
    }


def _gateways(xds: Xds) -> list[wire.GatewayView]:
    statuses = xds.streams.statuses()
    # While a gateway's Envoy is replaced, two streams have its node id: the later one is in `newest`.
    newest = {status.node: status for status in statuses}
    listed = sorted(statuses, key=lambda status: not status.rejections)[:MAX_GATEWAYS_LISTED]
    return [_gateway(status, xds, is_newest=newest[status.node] is status) for status in listed]


def _gateway(status: StreamStatus, xds: Xds, *, is_newest: bool) -> wire.GatewayView:
    """Returns the view of a client. `is_newest`: traffic reports with its node id are about this stream."""
    node = status.node if is_newest else ""
    summary = xds.traffic.gateway_summary(node)
    return wire.GatewayView(
        node=status.node,
        client=status.client,
        peer=status.peer,
        since=round(status.since, 3),
        revision=status.revision,
        rejections=status.rejections,
        requests=summary.requests,
        errors=summary.errors,
        in_progress=xds.traffic.requests_in_progress(node),
        p50=round(summary.p50, 6),
        p99=round(summary.p99, 6),
        certificate_expires=xds.traffic.certificate_expires(node),
    )


def _disconnected_gateways(xds: Xds) -> list[wire.DisconnectedGatewayView]:
    """Returns the gateways that have no stream to this node any more, the latest first."""
    return [
        wire.DisconnectedGatewayView(status.node, status.client, status.peer, round(seconds, 3), status.revision)
        for seconds, status in xds.streams.departed_gateways()
    ]


def _refused_streams(xds: Xds) -> list[wire.RefusedStreamView]:
    """Returns the clients whose streams were ended lately, the latest first."""
    return [
        wire.RefusedStreamView(client.node, client.peer, client.code, client.reason, round(client.at, 3), client.count)
        for client in xds.streams.refusals.recent()
    ]


def _traffic(xds: Xds) -> list[wire.TrafficView]:
    services = sorted(xds.traffic.by_service().items(), key=lambda item: (-item[1].errors, -item[1].requests, item[0]))
    return [
        wire.TrafficView(service, summary.requests, summary.errors, round(summary.p50, 6), round(summary.p99, 6))
        for service, summary in services[:MAX_SERVICES_LISTED]
    ]
