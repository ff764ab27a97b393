"""Load reports (LRS): the tries that gateways made at each instance.

A request that is retried counts as two tries, and a request that found no instance as none. What callers got is in
`traffic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from adsum.core.access.principal import Principal
from adsum.core.access.scopes import NamePatterns
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.model import Key, Listing
from adsum.core.validation import quoted
from adsum.dialects.xds.streams.errors import StreamRefused, invalid_argument
from adsum.dialects.xds.streams.request import MAX_NODE_LENGTH
from adsum.dialects.xds.streams.request_rate import RequestRate
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from adsum.gateway.intent.selectors import service_of_cluster
from adsum.mounts import StreamCall
from adsum.ports import Clock

LOAD_REPORT_INTERVAL: Final = 5
"""Seconds between two load reports of a client. Envoy counts the tries of a new service from its next report on."""
MAX_REPORTED_ENDPOINTS: Final = 20_000
"""Endpoints (service, address, port) whose tries are kept; further ones are not counted, and those that left the
catalog are dropped."""

_REPORTING_OPTIONS: Final[bytes] = LoadStatsResponse(
    send_all_clusters=True,
    load_reporting_interval=Duration(seconds=LOAD_REPORT_INTERVAL),
    report_endpoint_granularity=True,
).SerializeToString()


@dataclass(slots=True)
class InstanceTries:
    """The tries made at one instance, and those of them that failed."""

    tries: int = 0
    failed: int = 0


class LoadReports:
    """Sums up the load reports of all clients."""

    def __init__(self, clock: Clock, is_service: Callable[[str], bool], refusals: RefusalLog) -> None:
        """`is_service` returns whether the catalog has a service: clients also report clusters of their own."""
        self._clock = clock
        self._is_service = is_service
        self._refusals = refusals
        self._by_service: dict[str, dict[tuple[str, int], InstanceTries]] = {}
        """Tries by service, then by address and port."""
        self._endpoint_count = 0

    def by_instance(
        self, services: Mapping[str, ServiceSnapshot], addresses: Mapping[str, str]
    ) -> Iterator[tuple[Key, InstanceTries]]:
        """Yields the tries at each instance since the node started, and drops those at instances that have left.

        `addresses` are the IP addresses of host names, since clients know only IP addresses.
        """
        for service, endpoints in list(self._by_service.items()):
            snapshot = services.get(service)
            listings = () if snapshot is None else snapshot.listings.values()
            keys = {_endpoint(listing, addresses): listing.key for listing in listings}
            for endpoint in endpoints.keys() - keys.keys():
                del endpoints[endpoint]
                self._endpoint_count -= 1
            if not endpoints:
                del self._by_service[service]
            yield from ((keys[endpoint], tries) for endpoint, tries in endpoints.items())

    async def serve(self, call: StreamCall, principal: Principal) -> None:
        """Receives one client's reports until its call ends. Tries at services that it may not read do not count."""
        visible = principal.scopes.visible
        is_first = True
        rate = RequestRate()
        try:
            while (request := await call.read()) is not None:
                report = _parsed(request)
                if is_first:
                    _check_node(report)
                    await call.write(_REPORTING_OPTIONS)
                    is_first = False
                self._add(report, visible)
                await self._clock.sleep(rate.delay(self._clock.now()))
        except StreamRefused as refusal:
            self._refusals.add("", call.peer, refusal.code, str(refusal))
            call.refuse(refusal.code, str(refusal))
        except ConnectionError:
            pass  # The client has left.

    def _add(self, report: Any, visible: NamePatterns) -> None:
        for cluster in report.cluster_stats:
            # All clusters of a service count together, also those of a selection by tag or metadata.
            service = service_of_cluster(cluster.cluster_name)
            if not visible.includes(service):
                continue
            for locality in cluster.upstream_locality_stats:
                for endpoint in locality.upstream_endpoint_stats:
                    self._add_endpoint(service, endpoint)

    def _add_endpoint(self, service: str, report: Any) -> None:
        address = report.address.socket_address
        endpoints = self._by_service.get(service, {})
        tries = endpoints.get((address.address, address.port_value))
        if tries is None:
            if self._endpoint_count >= MAX_REPORTED_ENDPOINTS or not self._is_service(service):
                return
            self._endpoint_count += 1
            tries = InstanceTries()
            self._by_service.setdefault(service, endpoints)[address.address, address.port_value] = tries
        tries.tries += report.total_issued_requests
        tries.failed += report.total_error_requests


def _endpoint(listing: Listing, addresses: Mapping[str, str]) -> tuple[str, int]:
    instance = listing.instance
    return addresses.get(instance.address, instance.address), instance.port


def _check_node(report: Any) -> None:
    node = report.node.id
    if not node or len(node) > MAX_NODE_LENGTH or not node.isprintable():
        raise invalid_argument(
            f"the first load report must have a node id of 1 to {MAX_NODE_LENGTH} characters, not {quoted(node)}"
        )


def _parsed(request: bytes) -> Any:
    try:
        return LoadStatsRequest.FromString(request)
    except DecodeError:
        raise invalid_argument("the message is not a load report") from None
