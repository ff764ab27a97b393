"""What several nodes over etcd would hold: arithmetic on what the other benchmarks measure, and the shares simulated.

Nothing is started. Unit costs are what `renew`, `fanout` and `nodes` printed on the machine of docs/benchmarks.md; how
unevenly nodes share what they keep is simulated with the rule that they share by. docs/scale.md has the reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Final

from adsum.core.liveness.heartbeats import HEARTBEAT
from adsum.core.nodes.sharding import SHARDS, chosen
from benchmarks.harness.run_options import Setting
from benchmarks.harness.table import Result, Row, size

NODES: Final = (3, 5, 9)
FULL: Final = 0.6
"""Share of its one core that a node should be busy with; beyond it delays grow."""
ROOM: Final = 16 * 1024**3
"""Bytes of memory of a node."""

# Of one, in seconds of CPU and bytes.
RENEWAL: Final = 160e-6
"""At the node that is asked, one a request."""
TOGETHER: Final = 9e-6
"""The same, of a thousand in one request."""
PASSED_ON: Final = 160e-6
"""For passing it on and renewing it there, one a request."""
WRITTEN: Final = 450e-6
"""A change, at the node that writes it."""
FOLLOWED: Final = 130e-6
"""A change, at each other node."""
TOLD: Final = 30e-6
"""A change, for each watcher that hears of it."""
QUIET: Final = 15e-6
"""A heartbeat of a watcher that hears of nothing."""
INSTANCE: Final = 1_323
WATCHER: Final = 13.8 * 1024
EMPTY: Final = 60 * 1024**2


@dataclass(frozen=True, slots=True)
class World:
    """How it is used: one program an instance."""

    instances: int = 1_000_000
    every: float = 10.0
    """Seconds between two renewals: a third of a ttl of 30 s."""
    together: bool = False
    """Whether an agent on each host renews for a thousand."""
    each_service: int = 100
    follows: float = 5.0
    """Services that a program watches."""
    replaced: float = 0.1 / 600
    """Share of the instances that a deploy replaces a second: a tenth in ten minutes."""
    changes_each: int = 4
    """Registered, passing, draining, deregistered."""

    @property
    def renewals(self) -> float:
        return self.instances / self.every

    @property
    def watchers(self) -> float:
        return self.instances * self.follows

    @property
    def changes(self) -> float:
        return self.instances * self.replaced * self.changes_each

    @property
    def hears(self) -> float:
        """Watchers that hear of one change."""
        return self.each_service * self.follows


WORLDS: Final = {
    "each renews for itself and watches 5 services": World(),
    "the same, at a ttl of 90 s": World(every=30.0),
    "an agent on each host renews for all there": World(together=True),
    "the same, and calls go through gateways: few watch": World(together=True, follows=0.01),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Of the busiest node: shares of a core, and bytes."""

    renewals: float
    changes: float
    telling: float
    quiet: float
    memory: float

    @property
    def core(self) -> float:
        return self.renewals + self.changes + self.telling + self.quiet

    @property
    def first(self) -> str:
        """What takes most of what there is."""
        shares = {
            "renewals": self.renewals / FULL,
            "changes": self.changes / FULL,
            "telling watchers": self.telling / FULL,
            "quiet watchers": self.quiet / FULL,
            "memory": self.memory / ROOM,
        }
        return max(shares, key=lambda name: shares[name])


def load(world: World, nodes: int, uneven: float) -> Load:
    """`uneven`: how many times its fair share the node with the most keeps. Watchers and callers spread evenly."""
    asked = (TOGETHER if world.together else RENEWAL) / nodes
    passed = (TOGETHER if world.together else PASSED_ON) * (nodes - 1) / nodes / nodes * uneven
    watchers = world.watchers / nodes
    return Load(
        renewals=world.renewals * (asked + passed),
        changes=world.changes * (WRITTEN / nodes + FOLLOWED * (nodes - 1) / nodes),
        telling=world.changes * world.hears / nodes * TOLD,
        quiet=watchers / HEARTBEAT * QUIET,
        memory=EMPTY + world.instances * INSTANCE + watchers * WATCHER,
    )


def uneven(nodes: int, draws: int) -> tuple[float, float]:
    """How many times its fair share of shards the node with the most keeps: as a rule, and at worst."""
    rng = Random(1)
    found = []
    for _ in range(draws):
        ids = [rng.randbytes(8).hex() for _ in range(nodes)]
        kept = [chosen(shard, ids) for shard in range(SHARDS)]
        found.append(max(kept.count(id) for id in ids) * nodes / SHARDS)
    return median(found), max(found)


def holds(world: World, nodes: int, uneven: float) -> int:
    """How many instances: everything grows with them in proportion, but for what an empty node takes."""
    found = load(world, nodes, uneven)
    by_core = FULL / found.core
    by_memory = (ROOM - EMPTY) / (found.memory - EMPTY)
    return int(world.instances * min(by_core, by_memory))


def run(setting: Setting) -> list[Result]:
    results: list[Result] = []
    for nodes in NODES:
        typical, worst = uneven(nodes, setting.so_many(300, 10))
        what = f"{nodes} nodes: the most that one keeps, of its fair share: as a rule / at worst"
        results.append(Row(what, f"{typical:.2f} / {worst:.2f}", values=(("typical", typical), ("worst", worst))))
        results += [_row(name, world, nodes, typical) for name, world in WORLDS.items()]
    return results


def _row(name: str, world: World, nodes: int, uneven: float) -> Row:
    found, count = load(world, nodes, uneven), holds(world, nodes, uneven)
    parts = (found.renewals, found.changes, found.telling, found.quiet)
    told = " / ".join(f"{part:.0%}" for part in parts)
    values = tuple(zip(("renewals", "changes", "telling", "quiet"), parts, strict=True))
    return Row(
        f"  {name}",
        f"{count // 1000 * 1000:,} instances; first to give way: {found.first}",
        f"at {world.instances:,}: {told} of a core, {size(found.memory)}",
        values=(*values, ("memory", found.memory), ("holds", float(count))),
    )
