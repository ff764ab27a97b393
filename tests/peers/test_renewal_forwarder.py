from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from adsum import wire
from adsum.client.errors import RegistryUnavailable
from adsum.peers import renewal_forwarder
from adsum.peers.renewal_forwarder import RenewalAnswer, RenewalForwarder


def lease(id: str, holder: str = "") -> wire.LeaseBody:
    return wire.LeaseBody("orders", id, holder)


class Node:
    """Hears what is passed on; `gone` is lost to it."""

    def __init__(self, *gone: str) -> None:
        self.heard: list[list[str]] = []
        self.gone = gone
        self.away = False
        self.slow = 0.0

    async def renew(self, leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        await asyncio.sleep(self.slow)
        if self.away:
            raise RegistryUnavailable("it is away")
        self.heard.append([each.id for each in leases])
        lost = [wire.LostLease("orders", each.id, "unknown") for each in leases if each.id in self.gone]
        return wire.RenewalResult("e1", 1, len(leases) - len(lost), lost)


async def test_what_comes_together_goes_together_and_each_is_told_of_its_own() -> None:
    node = Node("b")
    line = RenewalForwarder("n1", node.renew)
    asked = [[lease("a")], [lease("b"), lease("c")], [lease("d")]]
    answers = await asyncio.gather(*(line.renew(leases) for leases in asked))
    assert answers == [RenewalAnswer([]), RenewalAnswer([wire.LostLease("orders", "b", "unknown")]), RenewalAnswer([])]
    assert node.heard == [["a", "b", "c", "d"]]
    assert await line.renew([lease("e")]) == RenewalAnswer([])
    await line.close()


async def test_two_who_claim_one_instance_are_asked_about_apart() -> None:
    node = Node()
    line = RenewalForwarder("n1", node.renew)
    await asyncio.gather(line.renew([lease("a", "old")]), line.renew([lease("a", "new")]))
    assert node.heard == [["a"], ["a"]]
    await line.close()


async def test_one_request_has_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RENEWALS", 3)
    node = Node()
    line = RenewalForwarder("n1", node.renew)
    await asyncio.gather(*(line.renew([lease(f"i{n}")]) for n in range(7)))
    assert [len(each) for each in node.heard] == [3, 3, 1]
    await line.close()


async def test_nobody_is_told_of_renewals_that_nobody_heard() -> None:
    node = Node()
    node.away = True
    line = RenewalForwarder("n1", node.renew)
    assert await line.renew([lease("a")]) is None
    node.away = False
    assert await line.renew([lease("a")]) == RenewalAnswer([])
    await line.close()


async def test_a_node_that_can_not_be_asked_is_told_of_once_and_once_more_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "adsum.peers")
    node = Node()
    line = RenewalForwarder("n1", node.renew)
    for node.away in (True, True, False, False):
        await line.renew([lease("a")])
    assert [each.getMessage() for each in caplog.records] == [
        "renewals can't be forwarded to n1, and are refused: no registry is available: it is away",
        "renewals are forwarded to n1 again",
    ]
    await line.close()


async def test_who_waits_too_long_is_told_so_and_the_node_hears_of_it_all_the_same() -> None:
    node = Node()
    node.slow = 2 * renewal_forwarder.RENEWAL_ANSWER_TIMEOUT
    line = RenewalForwarder("n1", node.renew)
    assert await line.renew([lease("a")]) is None
    await asyncio.sleep(node.slow)
    assert node.heard == [["a"]]
    await line.close()


async def test_past_its_bound_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal_forwarder, "MAX_WAITING_LEASES", 2)
    line = RenewalForwarder("n1", Node().renew)
    answers = await asyncio.gather(*(line.renew([lease(f"i{n}")]) for n in range(3)))
    assert answers == [RenewalAnswer([]), RenewalAnswer([]), None]
    assert await line.renew([lease("x")]) == RenewalAnswer([]), "there is room again"
    await line.close()
