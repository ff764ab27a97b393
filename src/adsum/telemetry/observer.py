"""The observer of a running registry: counts events as Prometheus metrics and logs one line a change."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from adsum.core.catalog.changes import Batch, Fact
from adsum.core.model import Check, Key, Outcome
from adsum.ports import Clock, ProbeLag
from adsum.telemetry.change_lines import CHANGE_LINES
from adsum.telemetry.logs import Logs
from adsum.telemetry.request_timings import RequestTimings

_DURATION_BUCKETS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
MAX_ENTRIES_PER_CHUNK: Final = 100
"""The most lines that are formatted together; larger batches are split into chunks."""
_SIZE_BUCKETS: Final = (1, 3, 10, 30, 100, 300, 1_000)


class _FurtherMetrics(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


class Telemetry:
    """Implements `ports.Observer` with Prometheus metrics and, if given, logs."""

    def __init__(self, clock: Clock, logs: Logs | None = None) -> None:
        self._clock = clock
        self._logs = logs
        self._metrics = metrics = CollectorRegistry()
        ProcessCollector(registry=metrics)
        self._timings = RequestTimings()
        metrics.register(self._timings)
        self._commit = Histogram(
            "adsum_commit_seconds", "Seconds to commit a batch", buckets=_DURATION_BUCKETS, registry=metrics
        )
        self._batch = Histogram("adsum_batch_changes", "Changes in a batch", buckets=_SIZE_BUCKETS, registry=metrics)
        self._delivery = Histogram(
            "adsum_publish_seconds",
            "Seconds from a commit until the last watch has sent it",
            buckets=_DURATION_BUCKETS,
            registry=metrics,
        )
        self._woken = Counter("adsum_watchers_woken", "Watchers that were woken by a change", registry=metrics)
        self._changes = Counter("adsum_changes", "Changes committed by this node", ["cause"], registry=metrics)
        self._refused = Counter(
            "adsum_requests_refused", "Requests refused, by error", ["operation", "error"], registry=metrics
        )
        self._access_refused = Counter(
            "adsum_access_refused",
            "Requests refused by access control, by operation and reason",
            ["operation", "reason"],
            registry=metrics,
        )
        self._shed = Counter(
            "adsum_connections_shed",
            "Connections ended by a limit or a rule, by the status that they got",
            ["status"],
            registry=metrics,
        )
        self._probes = Counter("adsum_probes", "Probes finished", ["kind", "result"], registry=metrics)
        self._check_lag = Gauge(
            "adsum_check_lag_seconds", "Seconds by which the latest check started late", registry=metrics
        )
        self._overdue = Gauge("adsum_checks_overdue", "Checks whose start is overdue", registry=metrics)
        self._guarded = Gauge(
            "adsum_guarded_expiries", "Expiries held back by the guard", ["service"], registry=metrics
        )
        self.lag = ProbeLag(0.0, 0)
        """The last reported state of the check schedule."""
        self.guards: dict[str, int] = {}
        """Service → the number of expiries that its guard holds back; only services with at least one."""

    def add_gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge; `read` is called whenever the metrics are read."""
        Gauge(name, text, registry=self._metrics).set_function(read)

    def add_metrics(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Add further metrics; `read` is called whenever the metrics are read."""
        self._metrics.register(_FurtherMetrics(read))

    def exposition(self) -> bytes:
        """Returns the metrics in Prometheus's text format."""
        return generate_latest(self._metrics)

    def committed(self, batch: Batch, took: float) -> None:
        self._commit.observe(took)
        self._batch.observe(len(batch.changes) + len(batch.edits))
        facts: Sequence[Fact] = batch.changes
        if batch.edits:
            facts = [*facts, *(edit for edit in batch.edits if edit.is_recorded)]
        for cause, count in Counts([fact.provenance.cause for fact in facts]).items():
            self._changes.labels(cause.value).inc(count)
        if self._logs is not None and self._logs.logs_changes:
            self._log_facts(self._logs, batch.revision, facts)

    def _log_facts(self, logs: Logs, revision: int, facts: Sequence[Fact]) -> None:
        """Log a line for each fact. The lines of a large batch are formatted in the writing thread, chunk by chunk, so
        that they don't block the event loop.
        """
        format_lines = CHANGE_LINES[logs.format]
        if len(facts) <= MAX_ENTRIES_PER_CHUNK:
            logs.put_lines(format_lines(revision, facts), len(facts))
            return
        for start in range(0, len(facts), MAX_ENTRIES_PER_CHUNK):
            chunk = facts[start : start + MAX_ENTRIES_PER_CHUNK]
            logs.put_lines(partial(format_lines, revision, chunk), len(chunk))

    def published(self, revision: int, woken: int) -> None:
        self._woken.inc(woken)

    def delivered(self, took: float) -> None:
        self._delivery.observe(took)

    def answered(self, operation: str, code: int, took: float) -> None:
        self._timings.observe(operation, code, took)

    def refused(self, operation: str, error: Exception) -> None:
        self._refused.labels(operation, type(error).__name__).inc()

    def access_refused(self, operation: str, reason: str) -> None:
        """Access control refused a request."""
        self._access_refused.labels(operation, reason).inc()

    def connection_shed(self, status: str) -> None:
        """A connection was ended by a limit or a rule. `status`: see `servers.http.OnShed`."""
        self._shed.labels(status).inc()

    def probed(self, key: Key, check: Check, outcome: Outcome) -> None:
        self._probes.labels(check.kind.value, outcome.result.value).inc()

    def lagged(self, lag: ProbeLag) -> None:
        self.lag = lag
        self._check_lag.set(lag.seconds)
        self._overdue.set(lag.overdue)

    def guarded(self, service: str, held: int) -> None:
        if held:
            self.guards[service] = held
            self._guarded.labels(service).set(held)
        elif self.guards.pop(service, None) is not None:
            self._guarded.remove(service)
        if self._logs is not None:
            message = "the guard holds back expiries" if held else "the guard has released its expiries"
            self._logs.log(self._clock.wall(), "warning", message, {"service": service, "holding": held})
