"""Metrics and log lines of a registry's events."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence

import pytest

from adsum.core.catalog.changes import Batch, Change, Fact
from adsum.core.model import Check, CheckKind, Instance, Key, Listing, Outcome, Registration, Result
from adsum.core.provenance import Cause, Provenance
from adsum.ports import ProbeLag
from adsum.telemetry import Logs, Telemetry, observer
from adsum.telemetry.change_lines import json_change_lines
from adsum.telemetry.observer import MAX_ENTRIES_PER_CHUNK
from adsum.telemetry.request_timings import RequestTimings
from tests.stores.support import put_token
from tests.support.fakes import FakeClock

KEY = Key("orders", "o1")


def _values(telemetry: Telemetry) -> dict[str, float]:
    lines = (line for line in telemetry.exposition().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_changes_are_counted_by_cause() -> None:
    telemetry = Telemetry(FakeClock())
    listing = Listing(Registration(Instance(*KEY, "10.0.0.1", 80)), Provenance(Cause.LEASE_LAPSED, "registry"))
    changes = [Change(KEY, listing, listing.provenance), Change(KEY, None, Provenance(Cause.LEASE_EXPIRED, "registry"))]
    telemetry.committed(Batch(7, changes), 0.002)
    values = _values(telemetry)
    assert values['adsum_changes_total{cause="lease-lapsed"}'] == 1
    assert values['adsum_changes_total{cause="lease-expired"}'] == 1
    assert values["adsum_batch_changes_sum"] == 2
    assert values['adsum_commit_seconds_bucket{le="0.003"}'] == 1


def test_a_guard_is_reported_while_it_holds_back_expiries() -> None:
    reading, writing = os.pipe()
    logs = Logs("info", "json", writing)
    telemetry = Telemetry(FakeClock(), logs)
    telemetry.guarded("orders", 3)
    assert telemetry.guards == {"orders": 3}
    assert _values(telemetry)['adsum_guarded_expiries{service="orders"}'] == 3
    telemetry.guarded("orders", 0)
    telemetry.guarded("users", 0)
    assert telemetry.guards == {}
    assert 'adsum_guarded_expiries{service="orders"}' not in _values(telemetry)
    logs.close()
    lines_read = [json.loads(line) for line in os.read(reading, 10_000).splitlines()]
    assert [(line["message"], line["service"]) for line in lines_read][:2] == [
        ("the guard holds back expiries", "orders"),
        ("the guard has released its expiries", "orders"),
    ]
    os.close(reading)
    os.close(writing)


def test_checks_watchers_and_refusals_are_counted() -> None:
    telemetry = Telemetry(FakeClock())
    telemetry.probed(KEY, Check("web", CheckKind.HTTP), Outcome(Result.FAIL))
    telemetry.lagged(ProbeLag(1.5, 4))
    telemetry.delivered(0.05)
    telemetry.published(3, 10)
    telemetry.refused("register", KeyError("x"))
    telemetry.add_gauge("adsum_things", "Things", lambda: 12)
    values = _values(telemetry)
    assert values['adsum_probes_total{kind="http",result="fail"}'] == 1
    assert (values["adsum_check_lag_seconds"], values["adsum_checks_overdue"]) == (1.5, 4)
    assert values['adsum_publish_seconds_bucket{le="0.1"}'] == 1
    assert values["adsum_watchers_woken_total"] == 10
    assert values['adsum_requests_refused_total{error="KeyError",operation="register"}'] == 1
    assert values["adsum_things"] == 12


def test_a_duration_counts_in_its_bucket_and_all_above() -> None:
    timings = RequestTimings()
    for took in (0.0001, 0.0002, 100.0):
        timings.observe("read", 200, took)
    (family,) = timings.collect()
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert (buckets["0.0001"], buckets["0.0003"], buckets["30.0"], buckets["+Inf"]) == (1, 2, 2, 3)
    (total,) = (sample.value for sample in family.samples if sample.name.endswith("_sum"))
    assert total == 100.0003


def test_the_lines_of_a_large_batch_are_formatted_in_the_writing_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()

    def record_thread(revision: int, facts: Sequence[Fact]) -> bytes:
        threads.add(threading.current_thread().name)
        return json_change_lines(revision, facts)

    monkeypatch.setattr(observer, "CHANGE_LINES", {"json": record_thread})
    reading, writing = os.pipe()
    logs = Logs("info", "json", writing)
    changes = [
        Change(Key("orders", f"o{n}"), None, Provenance(Cause.DEREGISTERED, "ann"))
        for n in range(2 * MAX_ENTRIES_PER_CHUNK + 1)
    ]
    Telemetry(FakeClock(), logs).committed(Batch(7, changes), 0.002)
    logs.close()
    lines_read = [json.loads(line) for line in os.read(reading, 1_000_000).splitlines()]
    assert [line["id"] for line in lines_read] == [change.key.id for change in changes]
    assert threads == {"adsum-log"}
    os.close(reading)
    os.close(writing)


def test_an_edit_that_no_person_made_is_neither_counted_nor_logged() -> None:
    reading, writing = os.pipe()
    logs = Logs("info", "json", writing)
    telemetry = Telemetry(FakeClock(), logs)
    telemetry.committed(Batch(7, [], [put_token("used", is_recorded=False), put_token("new")]), 0.002)
    logs.close()
    (line,) = [json.loads(line) for line in os.read(reading, 100_000).splitlines()]
    assert (line["token"], line["cause"]) == ("new", "declared")
    assert _values(telemetry)['adsum_changes_total{cause="declared"}'] == 1
    os.close(reading)
    os.close(writing)
