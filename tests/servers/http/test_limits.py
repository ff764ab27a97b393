"""The sweeping out of peers that take more than the bounds allow."""

from __future__ import annotations

import asyncio

from adsum.servers.http.limits import HttpLimits, Sweeper, ignore_shed


class StalledConnection:
    """A connection of a peer that reads as the test says."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.ended = ""

    def unsent_bytes(self) -> int:
        return self.waiting

    def refuse(self, code: int, detail: str) -> None:
        self.ended = f"{code}: {detail}"

    def abort(self) -> None:
        self.ended = "aborted"


async def _stalled(bounds: HttpLimits, *waiting: int) -> tuple[Sweeper, list[StalledConnection], float]:
    """A sweeper with peers that have stalled in that order, and the time at which they had."""
    sweeper = Sweeper(bounds, ignore_shed)
    peers = [StalledConnection(each) for each in waiting]
    for peer in peers:
        sweeper.write_paused(peer)
    return sweeper, peers, asyncio.get_running_loop().time()


async def test_a_peer_must_read_at_a_least_speed() -> None:
    sweeper, (slow, fast), now = await _stalled(HttpLimits(stall_timeout=30.0, min_read_bytes=1_000), 70_000, 70_000)
    slow.waiting -= 900
    fast.waiting -= 1_100
    sweeper.sweep(now + 29.0)
    assert (slow.ended, fast.ended) == ("", "")
    sweeper.sweep(now + 31.0)
    assert (slow.ended, fast.ended) == ("aborted", "")
    sweeper.sweep(now + 62.0)
    assert fast.ended == "aborted", "what was read before the last look does not count again"


async def test_peers_together_leave_no_more_than_the_bound_unread() -> None:
    sweeper, peers, now = await _stalled(HttpLimits(max_unsent_bytes=250), 100, 100, 100)
    sweeper.sweep(now)
    assert sum(each.waiting for each in peers if not each.ended) <= 250
    assert [each.ended for each in peers].count("aborted") == 1


async def test_those_that_have_not_read_for_the_longest_are_cut_off_first() -> None:
    sweeper, peers = Sweeper(HttpLimits(max_unsent_bytes=250), ignore_shed), [StalledConnection(100) for _ in range(4)]
    for peer in peers:
        sweeper.write_paused(peer)
        await asyncio.sleep(0.001)
    sweeper.sweep(asyncio.get_running_loop().time())
    assert [each.ended for each in peers] == ["aborted", "aborted", "", ""]
