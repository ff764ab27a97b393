"""The sweeping out of peers that take more than the bounds allow."""

from __future__ import annotations

import asyncio

from adsum.servers.http.limits import Bounds, Sweeper, untold


class Peer:
    """A connection of a peer that reads as the test says."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.ended = ""

    def unsent(self) -> int:
        return self.waiting

    def refuse(self, code: int, detail: str) -> None:
        self.ended = f"{code}: {detail}"

    def cut(self) -> None:
        self.ended = "cut"


async def _stalled(bounds: Bounds, *waiting: int) -> tuple[Sweeper, list[Peer], float]:
    """A sweeper with peers that have stalled in that order, and the time at which they had."""
    sweeper = Sweeper(bounds, untold)
    peers = [Peer(each) for each in waiting]
    for peer in peers:
        sweeper.stalls(peer)
    return sweeper, peers, asyncio.get_running_loop().time()


async def test_a_peer_must_read_at_a_least_speed() -> None:
    sweeper, (slow, fast), now = await _stalled(Bounds(stall=30.0, least=1_000), 70_000, 70_000)
    slow.waiting -= 900
    fast.waiting -= 1_100
    sweeper.sweep(now + 29.0)
    assert (slow.ended, fast.ended) == ("", "")
    sweeper.sweep(now + 31.0)
    assert (slow.ended, fast.ended) == ("cut", "")
    sweeper.sweep(now + 62.0)
    assert fast.ended == "cut", "what was read before the last look does not count again"


async def test_peers_together_leave_no_more_than_the_bound_unread() -> None:
    sweeper, peers, now = await _stalled(Bounds(unsent=250), 100, 100, 100)
    sweeper.sweep(now)
    assert sum(each.waiting for each in peers if not each.ended) <= 250
    assert [each.ended for each in peers].count("cut") == 1


async def test_those_that_have_not_read_for_the_longest_are_cut_off_first() -> None:
    sweeper, peers = Sweeper(Bounds(unsent=250), untold), [Peer(100) for _ in range(4)]
    for peer in peers:
        sweeper.stalls(peer)
        await asyncio.sleep(0.001)
    sweeper.sweep(asyncio.get_running_loop().time())
    assert [each.ended for each in peers] == ["cut", "cut", "", ""]
