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


async def test_concurrent_renewals_are_one_request_and_each_gets_its_answer() -> None:
    node = Node("b")
    line = RenewalForwarder("n1", node.renew)
    asked = [[lease("a")], [lease("b"), lease("c")], [lease("d")]]
    answers = await asyncio.gather(*(line.renew(leases) for leases in asked))
    assert answers == [RenewalAnswer([]), RenewalAnswer([wire.LostLease("orders", "b", "unknown")]), RenewalAnswer([])]
    assert node.heard == [["a", "b", "c", "d"]]
    assert await line.renew([lease("e")]) == RenewalAnswer([])
    await line.close()


async def test_two_renewals_of_one_instance_are_separate_requests() -> None:
    node = Node()
    line = RenewalForwarder("n1", node.renew)
    await asyncio.gather(line.renew([lease("a", "old")]), line.renew([lease("a", "new")]))
    assert node.heard == [["a"], ["a"]]
    await line.close()


async def test_one_request_has_a_bounded_number_of_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RENEWALS", 3)
    node = Node()
    line = RenewalForwarder("n1", node.renew)
    await asyncio.gather(*(line.renew([lease(f"i{n}")]) for n in range(7)))
    assert [len(each) for each in node.heard] == [3, 3, 1]
    await line.close()


async def test_there_is_no_answer_to_a_request_that_failed() -> None:
    node = Node()
    node.away = True
    line = RenewalForwarder("n1", node.renew)
    assert await line.renew([lease("a")]) is None
    node.away = False
    assert await line.renew([lease("a")]) == RenewalAnswer([])
    await line.close()


async def test_a_node_that_can_not_be_reached_is_logged_once_and_so_is_its_return(
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


async def test_a_renewal_without_an_answer_in_time_still_reaches_the_node() -> None:
    node = Node()
    node.slow = 2 * renewal_forwarder.RENEWAL_ANSWER_TIMEOUT
    line = RenewalForwarder("n1", node.renew)
    assert await line.renew([lease("a")]) is None
    await asyncio.sleep(node.slow)
    assert node.heard == [["a"]]
    await line.close()


async def test_past_its_bound_a_renewal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal_forwarder, "MAX_WAITING_LEASES", 2)
    line = RenewalForwarder("n1", Node().renew)
    answers = await asyncio.gather(*(line.renew([lease(f"i{n}")]) for n in range(3)))
    assert answers == [RenewalAnswer([]), RenewalAnswer([]), None]
    assert await line.renew([lease("x")]) == RenewalAnswer([]), "there is room again"
    await line.close()
