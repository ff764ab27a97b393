"""Load reports (LRS): what gateways say of the tries that they made at each instance.

A request that is tried again is two of them, and one that found no instance is none: what callers saw is in `traffic`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from adsum.core.catalog.snapshots import ServiceSnapshot
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
"""Seconds between two load reports of a client; Envoy counts for a service from the first report on that follows it."""
MAX_REPORTED_ENDPOINTS: Final = 20_000
"""Endpoints (service, address, port) whose tries are kept; further ones are not counted, and those that left the
catalog are dropped."""

_ASKED: Final[bytes] = LoadStatsResponse(
    send_all_clusters=True,
    load_reporting_interval=Duration(seconds=LOAD_REPORT_INTERVAL),
    report_endpoint_granularity=True,
).SerializeToString()


@dataclass(slots=True)
class InstanceTries:
    """Tries at one instance."""

    tries: int = 0
    failed: int = 0


class LoadReports:
    """Sums up what clients report."""

    def __init__(self, clock: Clock, is_service: Callable[[str], bool], refusals: RefusalLog) -> None:
        """`is_service` says whether a service is one: clients have clusters of their own, too."""
        self._clock = clock
        self._is_known = is_service
        self._refusals = refusals
        self._places: dict[str, dict[tuple[str, int], InstanceTries]] = {}
        self._count = 0

    def by_instance(
        self, services: Mapping[str, ServiceSnapshot], addresses: Mapping[str, str]
    ) -> Iterator[tuple[Key, InstanceTries]]:
        """What all clients said since the node started, by instance; what was said of those that left is forgotten.

        `addresses` are those of host names: clients were told, and tell, numbers.
        """
        for service, places in list(self._places.items()):
            known = services.get(service)
            here = {} if known is None else {_place(each, addresses): each.key for each in known.listings.values()}
            for place in places.keys() - here.keys():
                del places[place]
                self._count -= 1
            if not places:
                del self._places[service]
            yield from ((here[place], load) for place, load in places.items())

    async def serve(self, call: StreamCall) -> None:
        """Take one client's reports until it ends."""
        greeted = False
        pace = RequestRate()
        try:
            while (request := await call.read()) is not None:
                said = _parsed(request)
                if not greeted:
                    _hear(said)
                    await call.write(_ASKED)
                    greeted = True
                self._take(said)
                await self._clock.sleep(pace.delay(self._clock.now()))
        except StreamRefused as refusal:
            self._refusals.add("", call.peer, refusal.code, str(refusal))
            call.refuse(refusal.code, str(refusal))
        except ConnectionError:
            pass

    def _take(self, said: Any) -> None:
        for cluster in said.cluster_stats:
            # The clusters of a service, chosen by tag or metadata, count together.
            service = service_of_cluster(cluster.cluster_name)
            for part in cluster.upstream_locality_stats:
                for endpoint in part.upstream_endpoint_stats:
                    self._take_place(service, endpoint)

    def _take_place(self, service: str, said: Any) -> None:
        where = said.address.socket_address
        places = self._places.get(service, {})
        load = places.get((where.address, where.port_value))
        if load is None:
            if self._count >= MAX_REPORTED_ENDPOINTS or not self._is_known(service):
                return
            self._count += 1
            load = self._places.setdefault(service, places)[where.address, where.port_value] = InstanceTries()
        load.tries += said.total_issued_requests
        load.failed += said.total_error_requests


def _place(listing: Listing, addresses: Mapping[str, str]) -> tuple[str, int]:
    instance = listing.instance
    return addresses.get(instance.address, instance.address), instance.port


def _hear(said: Any) -> None:
    node = said.node.id
    if not node or len(node) > MAX_NODE_LENGTH or not node.isprintable():
        raise invalid_argument(f"the first report must say which node it is from, not {quoted(node)}")


def _parsed(request: bytes) -> Any:
    try:
        return LoadStatsRequest.FromString(request)
    except DecodeError:
        raise invalid_argument("this is no load report") from None
