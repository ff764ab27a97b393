"""What several nodes over etcd would hold: arithmetic on what the other benchmarks measure, and the shares simulated.

Nothing is started. Unit costs are what `renew`, `fanout` and `nodes` printed on the machine of docs/benchmarks.md; how
unevenly nodes share what they keep is simulated with the rule that they share by. docs/scale.md has the reasoning.
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
MAX_CPU_SHARE: Final = 0.6
"""Share of its one core that a node should be busy with; beyond it delays grow."""
NODE_MEMORY: Final = 16 * 1024**3
"""Bytes of memory of a node."""

# Of one, in seconds of CPU and bytes.
RENEWAL_CPU: Final = 160e-6
"""At the node that is asked, one a request."""
BATCHED_RENEWAL_CPU: Final = 9e-6
"""The same, of a thousand in one request."""
FORWARDED_RENEWAL_CPU: Final = 160e-6
"""For passing it on and renewing it there, one a request."""
WRITE_CPU: Final = 450e-6
"""A change, at the node that writes it."""
FOLLOW_CPU: Final = 130e-6
"""A change, at each other node."""
NOTIFY_CPU: Final = 30e-6
"""A change, for each watcher that hears of it."""
HEARTBEAT_CPU: Final = 15e-6
"""A heartbeat of a watcher that hears of nothing."""
INSTANCE_BYTES: Final = 1_323
WATCHER_BYTES: Final = 13.8 * 1024
EMPTY_NODE_BYTES: Final = 60 * 1024**2


@dataclass(frozen=True, slots=True)
class UsageScenario:
    """How it is used: one program an instance."""

    instances: int = 1_000_000
    renewal_interval: float = 10.0
    """Seconds between two renewals: a third of a ttl of 30 s."""
    is_batched: bool = False
    """Whether an agent on each host renews for a thousand."""
    instances_per_service: int = 100
    services_watched: float = 5.0
    """Services that a program watches."""
    replaced_per_second: float = 0.1 / 600
    """Share of the instances that a deploy replaces a second: a tenth in ten minutes."""
    changes_per_instance: int = 4
    """Registered, passing, draining, deregistered."""

    @property
    def renewals(self) -> float:
        return self.instances / self.renewal_interval

    @property
    def watchers(self) -> float:
        return self.instances * self.services_watched

    @property
    def changes(self) -> float:
        return self.instances * self.replaced_per_second * self.changes_per_instance

    @property
    def watchers_per_change(self) -> float:
        """Watchers that hear of one change."""
        return self.instances_per_service * self.services_watched


SCENARIOS: Final = {
    "each renews for itself and watches 5 services": UsageScenario(),
    "the same, at a ttl of 90 s": UsageScenario(renewal_interval=30.0),
    "an agent on each host renews for all there": UsageScenario(is_batched=True),
    "the same, and calls go through gateways: few watch": UsageScenario(is_batched=True, services_watched=0.01),
}


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """Of the busiest node: shares of a core, and bytes."""

    renewals: float
    changes: float
    notifications: float
    heartbeats: float
    memory: float

    @property
    def core(self) -> float:
        return self.renewals + self.changes + self.notifications + self.heartbeats

    @property
    def bottleneck(self) -> str:
        """What takes most of what there is."""
        shares = {
            "renewals": self.renewals / MAX_CPU_SHARE,
            "changes": self.changes / MAX_CPU_SHARE,
            "telling watchers": self.notifications / MAX_CPU_SHARE,
            "quiet watchers": self.heartbeats / MAX_CPU_SHARE,
            "memory": self.memory / NODE_MEMORY,
        }
        return max(shares, key=lambda name: shares[name])


def node_load(world: UsageScenario, nodes: int, uneven: float) -> NodeLoad:
    """`uneven`: how many times its fair share the node with the most keeps. Watchers and callers spread evenly."""
    asked = (BATCHED_RENEWAL_CPU if world.is_batched else RENEWAL_CPU) / nodes
    passed = (BATCHED_RENEWAL_CPU if world.is_batched else FORWARDED_RENEWAL_CPU) * (nodes - 1) / nodes / nodes * uneven
    watchers = world.watchers / nodes
    return NodeLoad(
        renewals=world.renewals * (asked + passed),
        changes=world.changes * (WRITE_CPU / nodes + FOLLOW_CPU * (nodes - 1) / nodes),
        notifications=world.changes * world.watchers_per_change / nodes * NOTIFY_CPU,
        heartbeats=watchers / DEFAULT_HEARTBEAT * HEARTBEAT_CPU,
        memory=EMPTY_NODE_BYTES + world.instances * INSTANCE_BYTES + watchers * WATCHER_BYTES,
    )


def imbalance(nodes: int, draws: int) -> tuple[float, float]:
    """How many times its fair share of shards the node with the most keeps: as a rule, and at worst."""
    rng = Random(1)
    found = []
    for _ in range(draws):
        ids = [rng.randbytes(8).hex() for _ in range(nodes)]
        kept = [shard_owner(shard, ids) for shard in range(SHARDS)]
        found.append(max(kept.count(id) for id in ids) * nodes / SHARDS)
    return median(found), max(found)


def capacity(world: UsageScenario, nodes: int, uneven: float) -> int:
    """How many instances: everything grows with them in proportion, but for what an empty node takes."""
    found = node_load(world, nodes, uneven)
    by_core = MAX_CPU_SHARE / found.core
    by_memory = (NODE_MEMORY - EMPTY_NODE_BYTES) / (found.memory - EMPTY_NODE_BYTES)
    return int(world.instances * min(by_core, by_memory))


def run(setting: RunOptions) -> list[Result]:
    results: list[Result] = []
    for nodes in NODES:
        typical, worst = imbalance(nodes, setting.count(300, 10))
        what = f"{nodes} nodes: the most that one keeps, of its fair share: as a rule / at worst"
        results.append(ResultRow(what, f"{typical:.2f} / {worst:.2f}", values=(("typical", typical), ("worst", worst))))
        results += [_row(name, world, nodes, typical) for name, world in SCENARIOS.items()]
    return results


def _row(name: str, world: UsageScenario, nodes: int, uneven: float) -> ResultRow:
    found, count = node_load(world, nodes, uneven), capacity(world, nodes, uneven)
    parts = (found.renewals, found.changes, found.notifications, found.heartbeats)
    told = " / ".join(f"{part:.0%}" for part in parts)
    values = tuple(zip(("renewals", "changes", "telling", "quiet"), parts, strict=True))
    return ResultRow(
        f"  {name}",
        f"{count // 1000 * 1000:,} instances; first to give way: {found.bottleneck}",
        f"at {world.instances:,}: {told} of a core, {memory_size(found.memory)}",
        values=(*values, ("memory", found.memory), ("holds", float(count))),
    )
