"""The sweeper ends connections of peers that take more than the limits allow."""

from __future__ import annotations

import asyncio

from adsum.servers.http.limits import HttpLimits, ignore_shed
from adsum.servers.http.sweeper import Sweeper


class StalledConnection:
    """A connection whose peer reads only what the test takes from `unsent`."""

    def __init__(self, unsent: int) -> None:
        self.unsent = unsent
        self.end = ""

    def unsent_bytes(self) -> int:
        return self.unsent

    def refuse(self, code: int, detail: str) -> None:
        self.end = f"{code}: {detail}"

    def abort(self) -> None:
        self.end = "aborted"


async def _stalled(limits: HttpLimits, *unsent: int) -> tuple[Sweeper, list[StalledConnection], float]:
    """Returns a sweeper, connections that stalled in this order, and the time at which they did."""
    sweeper = Sweeper(limits, ignore_shed)
    connections = [StalledConnection(size) for size in unsent]
    for connection in connections:
        sweeper.peer_stalled(connection)
    return sweeper, connections, asyncio.get_running_loop().time()


async def test_a_peer_that_reads_too_slowly_is_disconnected() -> None:
    limits = HttpLimits(stall_timeout=30.0, min_read_bytes=1_000)
    sweeper, (slow, fast), now = await _stalled(limits, 70_000, 70_000)
    slow.unsent -= 900
    fast.unsent -= 1_100
    sweeper.sweep(now + 29.0)
    assert (slow.end, fast.end) == ("", "")
    sweeper.sweep(now + 31.0)
    assert (slow.end, fast.end) == ("aborted", "")
    sweeper.sweep(now + 62.0)
    assert fast.end == "aborted", "bytes that were read before the last sweep do not count again"


async def test_the_bytes_that_wait_for_all_peers_together_are_bounded() -> None:
    sweeper, connections, now = await _stalled(HttpLimits(max_unsent_bytes=250), 100, 100, 100)
    sweeper.sweep(now)
    assert sum(connection.unsent for connection in connections if not connection.end) <= 250
    assert [connection.end for connection in connections].count("aborted") == 1


async def test_peers_that_have_not_read_for_the_longest_are_disconnected_first() -> None:
    sweeper = Sweeper(HttpLimits(max_unsent_bytes=250), ignore_shed)
    connections = [StalledConnection(100) for _ in range(4)]
    for connection in connections:
        sweeper.peer_stalled(connection)
        await asyncio.sleep(0.001)
    sweeper.sweep(asyncio.get_running_loop().time())
    assert [connection.end for connection in connections] == ["aborted", "aborted", "", ""]
