"""The cost of the choice of an endpoint, for each policy, at 10, 1,000 and 10,000 endpoints.

The picker only chooses. The channel's `pick()` chooses, counts the call as in flight and reads the clock. The third row
of each policy is a whole call: `pick()`, and `done()` at its end. Each value is the best of several repeats, since
other load on the machine only adds time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from random import Random
from timeit import repeat
from typing import Final

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.policies import POLICIES, policy
from adsum.client.calls.channel import Channel
from adsum.client.calls.options import ChannelOptions
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.client.views.resolver import Resolver
from adsum.clock import SystemClock
from adsum.core.weighted_endpoints import WeightedEndpoint
from adsum.wire import LeaseBody, OverrideBody, RegistrationBody, RenewalResult, WriteResult
from benchmarks.harness import workload
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, ResultRow, duration, durations, log_progress

SIZES: Final = (10, 1_000, 10_000)
AIMS: Final = {"round_robin": 1e-6, "least_request": 2e-6}
"""Maximum seconds of a pick; `least_request` is P2C."""
KEYED_POLICIES: Final = ("ring_hash", "maglev")
KEYS: Final = tuple(f"user-{number}" for number in range(64))


def run(options: RunOptions) -> list[Result]:
    return asyncio.run(_run(options))


async def _run(options: RunOptions) -> list[Result]:
    rows: list[Result] = []
    for name in POLICIES:
        log_progress(f"  {name}")
        bare = [_picker(options, name, size) for size in SIZES]
        whole = [await _channel(options, name, size) for size in SIZES]
        picks, turns = [pick for pick, _ in whole], [turn for _, turn in whole]
        rows.append(_row(f"{name}: picker.pick()", bare, AIMS.get(name)))
        rows.append(_row(f"{name}: channel.pick()", picks, AIMS.get(name)))
        rows.append(_row(f"{name}: channel.pick() and done()", turns, None))
    return rows


def _row(label: str, seconds: Sequence[float], aim: float | None) -> ResultRow:
    return ResultRow(
        f"{label} of 10 / 1,000 / 10,000",
        durations(seconds),
        aim=f"< {duration(aim)}" if aim else "",
        is_met=max(seconds) < aim if aim else None,
        values=tuple((str(size), value) for size, value in zip(SIZES, seconds, strict=True)),
    )


def _picker(options: RunOptions, name: str, size: int) -> float:
    choices = [WeightedEndpoint(workload.endpoint(number), 1.0) for number in range(size)]
    picker = policy(name).build(choices, LoadTracker(), Random(1))
    return _best(options, _picks(picker.pick, name))


async def _channel(options: RunOptions, name: str, size: int) -> tuple[float, float]:
    """Returns the seconds of a pick, and of a pick with its `done`."""
    clock, rng = SystemClock(), Random(1)
    resolver = Resolver(workload.SERVICE, _FixedSource(size), cache=None, clock=clock, rng=rng)
    channel = Channel(resolver, ChannelOptions(policy=name), clock=clock, rng=rng)
    resolver.start()
    await channel.ready(60.0)
    pick = _best(options, _picks(channel.pick, name))
    turn = _best(options, _picks(lambda key=None: channel.pick(key).done(), name))
    await channel.close()
    await resolver.close()
    return pick, turn


def _picks(pick: Callable[..., object], name: str) -> Callable[[], object]:
    """Returns a function that picks once for each of `KEYS`, with the key if the policy uses keys."""
    if name in KEYED_POLICIES:

        def picks() -> None:
            for key in KEYS:
                pick(key)
    else:

        def picks() -> None:
            for _ in KEYS:
                pick()

    return picks


def _best(options: RunOptions, picks: Callable[[], object]) -> float:
    turns = options.count(300, 10)
    return min(repeat(picks, number=turns, repeat=options.count(7, 2))) / turns / len(KEYS)


class _FixedSource:
    """A source with one view that never changes."""

    cache_fallback_delay = 1.0

    def __init__(self, size: int) -> None:
        self._endpoints = {endpoint.id: endpoint for endpoint in map(workload.endpoint, range(size))}

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        yield ServiceUpdate(ViewPosition("bench", 1), True, self._endpoints)
        await asyncio.get_running_loop().create_future()

    async def register(self, service: str, id: str, body: RegistrationBody) -> WriteResult:
        raise NotImplementedError

    async def renew(self, leases: Sequence[LeaseBody], node_timeout: float) -> RenewalResult:
        raise NotImplementedError

    async def override(self, service: str, id: str, body: OverrideBody) -> WriteResult:
        raise NotImplementedError

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> WriteResult:
        raise NotImplementedError

    async def local_address(self) -> str:
        raise NotImplementedError

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        """Does nothing: no drain waits for this client."""

    async def close(self) -> None:
        """Does nothing: there is nothing to close."""
