"""100,000 leases with a ttl of 30 s on one node, renewed in batches every 10 s.

It also measures the time to register the instances, their memory, and the time of a restart with all of them in the
store. They are spread over 1,000 services.
"""

from __future__ import annotations

import json
import time
from typing import Final

from benchmarks.harness import callers, load, workload
from benchmarks.harness.load import CALLERS
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.servers import BenchmarkNode, sqlite
from benchmarks.harness.table import Result, ResultRow, duration, log_progress, memory_size, rate

INSTANCES: Final = 100_000
SERVICES: Final = 1_000
TTL: Final = 30.0
RENEWAL_INTERVAL: Final = 10.0
"""Seconds between two renewals of a lease: a third of the ttl, as registrars do."""
MAX_LATENESS: Final = RENEWAL_INTERVAL
"""Seconds by which a batch of renewals may be late; then the node is too slow, and the benchmark fails."""
LEASES_PER_REQUEST: Final = 1_000
"""Leases that one request renews."""
GRACE: Final = 600.0
REGISTRATIONS_PER_ROUND: Final = 10_000
"""Registrations between two renewals of all leases, so that no lease lapses before the last registration."""


def run(options: RunOptions) -> list[Result]:
    instances = options.count(INSTANCES, 2_000)
    every = options.seconds(RENEWAL_INTERVAL, 1.0)
    store = sqlite(options.folder)
    with BenchmarkNode(options.folder, store) as node:
        empty = node.memory()
        took = _load(node, instances)
        registrars = RenewalLoad(node, instances)
        registrars.renew_for(every, every)
        memory = (node.memory() - empty) / instances
        log_progress("  renewals")
        share = _share_of_a_core(node, registrars, every, options.seconds(25.0, 2.0))
    log_progress("  restart")
    with BenchmarkNode(options.folder, store) as node:
        restart = node.start_seconds
        kept = _status(node)["instances"]
    if kept != instances:
        raise load.WrongAnswers(f"{kept} of {instances} instances are there after a restart")
    return [
        ResultRow(
            f"{instances:,} instances at ttl {TTL:.0f} s, renewed every {every:.0f} s: CPU of one core",
            f"{share:.1%}",
            values=(("share", share), ("renewals_per_second", instances / every)),
        ),
        ResultRow(f"memory per instance, of {instances:,}", memory_size(memory), values=(("memory", memory),)),
        ResultRow(
            f"registering {instances:,} instances in {SERVICES:,} services",
            f"{duration(took)}, {rate(instances / took)}",
            values=(("took", took),),
        ),
        ResultRow(f"restart with {instances:,} instances in SQLite", duration(restart), values=(("took", restart),)),
    ]


def _load(node: BenchmarkNode, instances: int) -> float:
    """Registers all instances and keeps their leases renewed; returns the seconds that the registrations took."""
    log_progress(f"  {instances:,} registrations")
    puts = workload.puts(node.port, workload.spread(instances, SERVICES), ttl=TTL, grace=GRACE)
    took, done = 0.0, 0
    while done < instances:
        some = min(REGISTRATIONS_PER_ROUND, instances - done)
        found = callers.call_count(node.port, puts, CALLERS, callers.Http1Connection, count=some)
        if found.failed:
            raise load.WrongAnswers(f"{found.failed} of {some} registrations failed")
        took += found.took
        done += some
        RenewalLoad(node, instances).renew(done)
    return took


def _share_of_a_core(node: BenchmarkNode, registrars: RenewalLoad, every: float, seconds: float) -> float:
    """Returns the share of a core that the node uses for renewals."""
    before, began = node.cpu(), time.monotonic()
    late = registrars.renew_for(seconds, every)
    share = (node.cpu() - before) / (time.monotonic() - began)
    if late > MAX_LATENESS:
        raise load.WrongAnswers(f"renewals were up to {late:.0f} s late")
    lapsed = _status(node).get("leases_lapsed", 0)
    if lapsed:
        raise load.WrongAnswers(f"{lapsed} leases lapsed although they were renewed")
    return share


def _status(node: BenchmarkNode) -> dict[str, int]:
    status: dict[str, int] = json.loads(node.get("/api/v1/status"))
    return status


class RenewalLoad:
    """Renews all leases in batches, evenly spread over time."""

    def __init__(self, node: BenchmarkNode, instances: int) -> None:
        self._node = node
        leases = [{"service": service, "id": id} for service, id in workload.spread(instances, SERVICES)]
        together = min(LEASES_PER_REQUEST, max(1, instances // 20))
        self._batches = [leases[at : at + together] for at in range(0, instances, together)]
        self._texts = [json.dumps({"leases": batch}).encode() for batch in self._batches]
        self._turn = 0

    def renew(self, count: int) -> None:
        """Renews the first `count` leases now. Raises `WrongAnswers` if a lease is lost."""
        for batch, text in zip(self._batches, self._texts, strict=True):
            if count <= 0:
                return
            self._send(text)
            count -= len(batch)

    def renew_for(self, seconds: float, every: float) -> float:
        """Renews each lease every `every` seconds, for `seconds`; returns by how much the latest batch was late."""
        began, pause, late = time.monotonic(), every / len(self._texts), 0.0
        for turn in range(1, int(seconds / pause) + 1):
            self._send(self._texts[self._turn % len(self._texts)])
            self._turn += 1
            wait = began + turn * pause - time.monotonic()
            late = max(late, -wait)
            time.sleep(max(0.0, wait))
        return late

    def _send(self, text: bytes) -> None:
        answer = json.loads(self._node.post("/api/v1/renew", text))
        if answer.get("lost"):
            raise load.WrongAnswers(f"leases were lost: {answer['lost'][0]}")
