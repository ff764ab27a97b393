"""Load reports: the tries that gateways made at each instance."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse

from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.model import Instance, Key, Registration
from adsum.dialects.xds.telemetry import load_reports
from adsum.dialects.xds.telemetry.load_reports import InstanceTries, LoadReports
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from tests.support.fakes import FakeClock
from tests.support.tokens import make_token

CALLER = Caller("tester", 0.0)


class LoadReportCall:
    """A call of a client that sends these reports and hangs up."""

    peer = "192.0.2.1:1"
    certificate = b""
    metadata: Mapping[str, str] = MappingProxyType({})

    def __init__(self, *reports: LoadStatsRequest) -> None:
        self._reports = [report.SerializeToString() for report in reports]
        self.written: list[bytes] = []
        self.refused = ""

    async def read(self) -> bytes | None:
        return self._reports.pop(0) if self._reports else None

    async def write(self, message: bytes) -> None:
        self.written.append(message)

    def refuse(self, code: str, message: str) -> None:
        self.refused = f"{code}: {message}"

    def cut(self, reason: str) -> None:
        raise AssertionError


def _report(cluster: str, *endpoints: tuple[str, int, int, int], node: str = "gw") -> Any:
    """Returns a report about a cluster: address, port, requests and errors of each endpoint."""
    report: Any = LoadStatsRequest()
    report.node.id = node
    part = report.cluster_stats.add(cluster_name=cluster).upstream_locality_stats.add()
    for address, port, requests, errors in endpoints:
        part.total_issued_requests += requests
        part.total_error_requests += errors
        stats = part.upstream_endpoint_stats.add(total_issued_requests=requests, total_error_requests=errors)
        stats.address.socket_address.address, stats.address.socket_address.port_value = address, port
    return report


def _catalog(*ids: str) -> Snapshot:
    snapshot = EMPTY_SNAPSHOT
    for n, id in enumerate(ids):
        registration = Registration(Instance("orders", id, "127.0.0.1", 8000 + n))
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, decisions.register(registration, CALLER)(snapshot)))
    return snapshot


async def _serve(reports: LoadReports, call: LoadReportCall, *scopes: str) -> None:
    """Serves the call of a caller with these scopes; all by default."""
    await reports.serve(call, make_token("gw", *(scopes or ("read:*",)))[0].principal())


def _is_service(service: str) -> bool:
    return service == "orders"


async def test_tries_are_counted_by_instance() -> None:
    reports, snapshot = LoadReports(FakeClock(), _is_service, RefusalLog(FakeClock())), _catalog("a", "b")
    first = _report("orders", ("127.0.0.1", 8000, 5, 1), ("127.0.0.1", 8001, 2, 0))
    call = LoadReportCall(first, _report("orders?tag=canary", ("127.0.0.1", 8000, 3, 0)))
    await _serve(reports, call)
    assert LoadStatsResponse.FromString(call.written[0]).report_endpoint_granularity
    assert dict(reports.by_instance(snapshot.services, {})) == {
        Key("orders", "a"): InstanceTries(8, 1),
        Key("orders", "b"): InstanceTries(2, 0),
    }


async def test_an_instance_with_a_host_name_is_found_by_its_resolved_address() -> None:
    reports, snapshot = LoadReports(FakeClock(), _is_service, RefusalLog(FakeClock())), EMPTY_SNAPSHOT
    named = Registration(Instance("orders", "a", "app.example", 8000))
    snapshot = snapshot.apply(Batch(1, decisions.register(named, CALLER)(snapshot)))
    await _serve(reports, LoadReportCall(_report("orders", ("192.0.2.7", 8000, 4, 0))))
    assert dict(reports.by_instance(snapshot.services, {"app.example": "192.0.2.7"})) == {
        Key("orders", "a"): InstanceTries(4)
    }


async def test_instances_that_left_are_dropped_and_unknown_clusters_never_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_reports, "MAX_REPORTED_ENDPOINTS", 2)
    reports = LoadReports(FakeClock(), _is_service, RefusalLog(FakeClock()))
    endpoints = [("127.0.0.1", 8000 + n, 1, 0) for n in range(3)]
    await _serve(
        reports, LoadReportCall(_report("orders", *endpoints), _report("adsum_registry", ("127.0.0.1", 1, 1, 0)))
    )
    assert [key.id for key, _ in reports.by_instance(_catalog("a", "b", "c").services, {})] == ["a", "b"]
    assert list(reports.by_instance(EMPTY_SNAPSHOT.services, {})) == []
    await _serve(reports, LoadReportCall(_report("orders", endpoints[2])))
    assert [key.id for key, _ in reports.by_instance(_catalog("a", "b", "c").services, {})] == ["c"]


async def test_tries_at_services_that_the_caller_may_not_read_do_not_count() -> None:
    reports, snapshot = LoadReports(FakeClock(), _is_service, RefusalLog(FakeClock())), _catalog("a")
    call = LoadReportCall(_report("orders", ("127.0.0.1", 8000, 5, 1)))
    await _serve(reports, call, "read:users", "read:orders-*")
    assert call.written, "the call itself is answered"
    assert list(reports.by_instance(snapshot.services, {})) == []
    call = LoadReportCall(_report("orders?tag=canary", ("127.0.0.1", 8000, 2, 1)))
    await _serve(reports, call, "read:orders")
    assert dict(reports.by_instance(snapshot.services, {})) == {Key("orders", "a"): InstanceTries(2, 1)}
