"""Load reports (LRS): what gateways and gRPC clients say of the requests that they sent to each service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from adsum.core.catalog import ServiceSnapshot
from adsum.core.model import Key, Listing
from adsum.core.rules import shown
from adsum.dialects.xds.bounds import LOADS_EVERY, MAX_LOADS, MAX_NODE, MAX_PLACES
from adsum.dialects.xds.pace import Pace
from adsum.dialects.xds.refusals import Refused, malformed
from adsum.dialects.xds.stream import Call
from adsum.ports import Clock

_ASKED: Final[bytes] = LoadStatsResponse(
    send_all_clusters=True,
    load_reporting_interval=Duration(seconds=LOADS_EVERY),
    report_endpoint_granularity=True,
).SerializeToString()


@dataclass(slots=True)
class Load:
    """Requests from one client to one service: since it connected, and in progress as it said last."""

    requests: int = 0
    errors: int = 0
    dropped: int = 0
    in_progress: int = 0


class Loads:
    """Sums up what clients report. A client is its node's id; what it said is forgotten when its last stream ends."""

    def __init__(self, clock: Clock, is_known: Callable[[str], bool]) -> None:
        """`is_known` says whether a service is one: clients have clusters of their own, too."""
        self._clock = clock
        self._is_known = is_known
        self._of: dict[str, dict[str, Load]] = {}
        self._streams: dict[str, int] = {}
        self._pairs = 0
        self._totals: dict[str, Load] = {}
        self._places: dict[str, dict[tuple[str, int], Load]] = {}
        self._count = 0

    def of(self, node: str) -> Mapping[str, Load]:
        """What one client said, by service."""
        return self._of.get(node, {})

    def total(self, node: str) -> Load:
        """What one client said of all services."""
        total = Load()
        for each in self.of(node).values():
            _add(total, each)
        return total

    def by_service(self) -> dict[str, Load]:
        """What all clients said since the node started, by service; in progress: what those say that are connected."""
        totals = {service: replace(total) for service, total in self._totals.items()}
        for loads in self._of.values():
            for service, each in loads.items():
                totals[service].in_progress += each.in_progress
        return totals

    def by_instance(
        self, services: Mapping[str, ServiceSnapshot], addresses: Mapping[str, str]
    ) -> Iterator[tuple[Key, Load]]:
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

    async def speak(self, call: Call) -> None:
        """Take one client's reports until it ends."""
        node: str | None = None
        pace = Pace()
        try:
            while (request := await call.read()) is not None:
                said = _parsed(request)
                if node is None:
                    node = self._greet(said)
                    await call.write(_ASKED)
                self._take(node, said)
                await self._clock.sleep(pace.pause(self._clock.now()))
        except Refused as refusal:
            await call.refuse(refusal.code, str(refusal))
        except ConnectionError:
            pass
        finally:
            if node is not None:
                self._part(node)

    def _greet(self, said: Any) -> str:
        node: str = said.node.id
        if not node or len(node) > MAX_NODE or not node.isprintable():
            raise malformed(f"the first report must say which node it is from, not {shown(node)}")
        self._streams[node] = self._streams.get(node, 0) + 1
        return node

    def _part(self, node: str) -> None:
        self._streams[node] -= 1
        if not self._streams[node]:
            del self._streams[node]
            self._pairs -= len(self._of.pop(node, ()))

    def _take(self, node: str, said: Any) -> None:
        loads = self._of.setdefault(node, {})
        reports: dict[str, Load] = {}
        for cluster in said.cluster_stats:
            # The clusters of a service, chosen by tag or metadata, count together.
            report = reports.setdefault(cluster.cluster_name.partition("?")[0], Load())
            report.dropped += cluster.total_dropped_requests
            for part in cluster.upstream_locality_stats:
                report.requests += part.total_issued_requests
                report.errors += part.total_error_requests
                report.in_progress += part.total_requests_in_progress
                for endpoint in part.upstream_endpoint_stats:
                    self._take_place(cluster.cluster_name.partition("?")[0], endpoint)
        for load in loads.values():
            load.in_progress = 0  # What is not reported is at rest.
        for service, report in reports.items():
            if report != Load() and self._has_room(loads, service):
                _add(loads.setdefault(service, Load()), report)
                _add(self._totals.setdefault(service, Load()), replace(report, in_progress=0))

    def _take_place(self, service: str, said: Any) -> None:
        where = said.address.socket_address
        places = self._places.get(service, {})
        load = places.get((where.address, where.port_value))
        if load is None:
            if self._count >= MAX_PLACES or not self._is_known(service):
                return
            self._count += 1
            load = self._places.setdefault(service, places)[where.address, where.port_value] = Load()
        load.requests += said.total_issued_requests
        load.errors += said.total_error_requests

    def _has_room(self, loads: dict[str, Load], service: str) -> bool:
        if service in loads:
            return True
        if self._pairs >= MAX_LOADS or len(self._totals) >= MAX_LOADS or not self._is_known(service):
            return False
        self._pairs += 1
        return True


def _place(listing: Listing, addresses: Mapping[str, str]) -> tuple[str, int]:
    instance = listing.instance
    return addresses.get(instance.address, instance.address), instance.port


def _parsed(request: bytes) -> Any:
    try:
        return LoadStatsRequest.FromString(request)
    except DecodeError:
        raise malformed("this is no load report") from None


def _add(total: Load, each: Load) -> None:
    total.requests += each.requests
    total.errors += each.errors
    total.dropped += each.dropped
    total.in_progress += each.in_progress
