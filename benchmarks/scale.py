"""An estimate of how many instances several nodes over etcd can hold, from the costs that other benchmarks measured.

Nothing is started. The unit costs are those that `renewal`, `renew`, `fanout` and `nodes` printed on the machine of
docs/benchmarks.md. How unevenly nodes share the services is simulated with their own rule. docs/scale.md explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Final

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.core.nodes.sharding import SHARDS, shard_owner
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, ResultRow, memory_size

NODES: Final = (3, 5, 9)
MIN_CAPACITY: Final = 150_000
"""The aim: instances that three nodes hold if each program renews for itself."""
MAX_CPU_SHARE: Final = 0.6
"""The share of its core that a node may use; beyond it delays grow."""
NODE_MEMORY: Final = 16 * 1024**3
"""Memory of a node, in bytes."""

# Unit costs, in seconds of CPU and in bytes.
RENEWAL_CPU: Final = 16e-6
"""A renewal in a request of its own, at the node that receives it."""
BATCHED_RENEWAL_CPU: Final = 9e-6
"""A renewal in a request with a thousand, at the node that receives it."""
FORWARDED_RENEWAL_CPU: Final = 22e-6
"""Forwarding a renewal and renewing it at its keeper, when about 80 are forwarded in a request."""
WRITE_CPU: Final = 200e-6
"""A change, at the node that writes it."""
FOLLOW_CPU: Final = 45e-6
"""A change, at each of the other nodes."""
NOTIFY_CPU: Final = 17e-6
"""A change, for each stream that gets it."""
ACKNOWLEDGEMENT_CPU: Final = 18e-6
"""An acknowledgement: each stream sends one when it has taken a change."""
HEARTBEAT_CPU: Final = 12.5e-6
"""A heartbeat of an idle stream, however many services it carries."""
INSTANCE_BYTES: Final = 1_000
STREAM_BYTES: Final = 15.3 * 1024
"""The stream of a program that watches five services."""
EMPTY_NODE_BYTES: Final = 60 * 1024**2


@dataclass(frozen=True, slots=True)
class UsageScenario:
    """A pattern of use, with one program for each instance."""

    instances: int = 1_000_000
    renewal_interval: float = 10.0
    """Seconds between two renewals: a third of a ttl of 30 s."""
    is_batched: bool = False
    """True if an agent on each host renews a thousand leases in one request."""
    instances_per_service: int = 100
    services_watched: float = 5.0
    """Services that a program watches, in one stream."""
    watching: float = 1.0
    """The share of the programs that watch. The others call through gateways."""
    replaced_per_second: float = 0.1 / 600
    """The share of all instances that a deploy replaces in a second: a tenth in ten minutes."""
    changes_per_instance: int = 4
    """Changes when an instance is replaced: registered, passing, draining, deregistered."""

    @property
    def renewals(self) -> float:
        return self.instances / self.renewal_interval

    @property
    def streams(self) -> float:
        """One for each program that watches."""
        return self.instances * self.watching

    @property
    def changes(self) -> float:
        return self.instances * self.replaced_per_second * self.changes_per_instance

    @property
    def streams_per_change(self) -> float:
        """The number of streams that get one change."""
        return self.instances_per_service * self.services_watched * self.watching


SCENARIOS: Final = {
    "each program renews its lease and watches 5 services": UsageScenario(),
    "the same, with a ttl of 90 s": UsageScenario(renewal_interval=30.0),
    "an agent on each host renews all its leases": UsageScenario(is_batched=True),
    "the same, with gateways, so that few programs watch": UsageScenario(is_batched=True, watching=0.002),
}


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """The load of the busiest node: shares of a core, and bytes of memory."""

    renewals: float
    changes: float
    notifications: float
    """The notifications of a deploy, and their acknowledgements."""
    heartbeats: float
    memory: float

    @property
    def core(self) -> float:
        return self.renewals + self.changes + self.notifications + self.heartbeats

    @property
    def bottleneck(self) -> str:
        """The resource that is used up first."""
        shares = {
            "renewals": self.renewals / MAX_CPU_SHARE,
            "changes": self.changes / MAX_CPU_SHARE,
            "notifications": self.notifications / MAX_CPU_SHARE,
            "heartbeats": self.heartbeats / MAX_CPU_SHARE,
            "memory": self.memory / NODE_MEMORY,
        }
        return max(shares, key=lambda name: shares[name])


def node_load(scenario: UsageScenario, nodes: int, uneven: float) -> NodeLoad:
    """Returns the load of the busiest node, which keeps `uneven` times its fair share of the services.

    Streams and callers are spread evenly.
    """
    received = (BATCHED_RENEWAL_CPU if scenario.is_batched else RENEWAL_CPU) / nodes
    forwarded = (
        (BATCHED_RENEWAL_CPU if scenario.is_batched else FORWARDED_RENEWAL_CPU) * (nodes - 1) / nodes / nodes * uneven
    )
    streams = scenario.streams / nodes
    return NodeLoad(
        renewals=scenario.renewals * (received + forwarded),
        changes=scenario.changes * (WRITE_CPU / nodes + FOLLOW_CPU * (nodes - 1) / nodes),
        notifications=scenario.changes * scenario.streams_per_change / nodes * (NOTIFY_CPU + ACKNOWLEDGEMENT_CPU),
        heartbeats=streams / DEFAULT_HEARTBEAT * HEARTBEAT_CPU,
        memory=EMPTY_NODE_BYTES + scenario.instances * INSTANCE_BYTES + streams * STREAM_BYTES,
    )


def imbalance(nodes: int, draws: int) -> tuple[float, float]:
    """Returns the shards of the busiest node by its fair share: the median and the maximum over random node ids."""
    rng = Random(1)
    found = []
    for _ in range(draws):
        ids = [rng.randbytes(8).hex() for _ in range(nodes)]
        kept = [shard_owner(shard, ids) for shard in range(SHARDS)]
        found.append(max(kept.count(id) for id in ids) * nodes / SHARDS)
    return median(found), max(found)


def capacity(scenario: UsageScenario, nodes: int, uneven: float) -> int:
    """Returns how many instances the nodes hold. All loads are proportional to them, except an empty node's memory."""
    found = node_load(scenario, nodes, uneven)
    by_core = MAX_CPU_SHARE / found.core
    by_memory = (NODE_MEMORY - EMPTY_NODE_BYTES) / (found.memory - EMPTY_NODE_BYTES)
    return int(scenario.instances * min(by_core, by_memory))


def run(options: RunOptions) -> list[Result]:
    results: list[Result] = []
    for nodes in NODES:
        typical, worst = imbalance(nodes, options.count(300, 10))
        label = f"{nodes} nodes: shards of the busiest node by its fair share: median / maximum"
        results.append(
            ResultRow(label, f"{typical:.2f} / {worst:.2f}", values=(("typical", typical), ("worst", worst)))
        )
        results += [_row(name, scenario, nodes, typical) for name, scenario in SCENARIOS.items()]
    return results


def _row(name: str, scenario: UsageScenario, nodes: int, uneven: float) -> ResultRow:
    found, count = node_load(scenario, nodes, uneven), capacity(scenario, nodes, uneven)
    parts = (found.renewals, found.changes, found.notifications, found.heartbeats)
    shares = " / ".join(f"{part:.0%}" for part in parts)
    values = tuple(zip(("renewals", "changes", "notifications", "heartbeats"), parts, strict=True))
    has_aim = nodes == NODES[0] and scenario == UsageScenario()
    return ResultRow(
        f"  {name}",
        f"{count // 1000 * 1000:,} instances; bottleneck: {found.bottleneck}",
        f"at {scenario.instances:,}: {shares} of a core, {memory_size(found.memory)}",
        aim=f"≥ {MIN_CAPACITY:,}" if has_aim else "",
        is_met=count >= MIN_CAPACITY if has_aim else None,
        values=(*values, ("memory", found.memory), ("capacity", float(count))),
    )
