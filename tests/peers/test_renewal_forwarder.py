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


class FakeKeeperNode:
    """Records the requests. The leases of `lost_ids` are lost."""

    def __init__(self, *lost_ids: str) -> None:
        self.requests: list[list[str]] = []
        self.lost_ids = lost_ids
        self.is_away = False
        self.delay = 0.0

    async def renew(self, leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        await asyncio.sleep(self.delay)
        if self.is_away:
            raise RegistryUnavailable("it is away")
        self.requests.append([lease_body.id for lease_body in leases])
        lost = [
            wire.LostLease("orders", lease_body.id, "unknown")
            for lease_body in leases
            if lease_body.id in self.lost_ids
        ]
        return wire.RenewalResult("e1", 1, len(leases) - len(lost), lost)


async def renew(forwarder: RenewalForwarder, leases: Sequence[wire.LeaseBody]) -> RenewalAnswer | None:
    """Forwards renewals, and returns the answer."""
    answer: asyncio.Future[RenewalAnswer | None] = asyncio.get_running_loop().create_future()
    forwarder.renew(leases, answer.set_result)  # Fails if there are two answers.
    return await answer


async def test_concurrent_renewals_are_one_request_and_each_gets_its_answer() -> None:
    node = FakeKeeperNode("b")
    forwarder = RenewalForwarder("n1", node.renew)
    batches = [[lease("a")], [lease("b"), lease("c")], [lease("d")]]
    answers = await asyncio.gather(*(renew(forwarder, leases) for leases in batches))
    assert answers == [RenewalAnswer(()), RenewalAnswer((wire.LostLease("orders", "b", "unknown"),)), RenewalAnswer(())]
    assert node.requests == [["a", "b", "c", "d"]]
    assert await renew(forwarder, [lease("e")]) == RenewalAnswer(())
    await forwarder.close()


async def test_two_renewals_of_one_instance_are_separate_requests() -> None:
    node = FakeKeeperNode()
    forwarder = RenewalForwarder("n1", node.renew)
    await asyncio.gather(renew(forwarder, [lease("a", "old")]), renew(forwarder, [lease("a", "new")]))
    assert node.requests == [["a"], ["a"]]
    await forwarder.close()


async def test_one_request_has_a_bounded_number_of_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RENEWALS", 3)
    node = FakeKeeperNode()
    forwarder = RenewalForwarder("n1", node.renew)
    await asyncio.gather(*(renew(forwarder, [lease(f"i{n}")]) for n in range(7)))
    assert [len(request) for request in node.requests] == [3, 3, 1]
    await forwarder.close()


async def test_there_is_no_answer_to_a_request_that_failed() -> None:
    node = FakeKeeperNode()
    node.is_away = True
    forwarder = RenewalForwarder("n1", node.renew)
    assert await renew(forwarder, [lease("a")]) is None
    node.is_away = False
    assert await renew(forwarder, [lease("a")]) == RenewalAnswer(())
    await forwarder.close()


async def test_a_node_that_can_not_be_reached_is_logged_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "adsum.peers")
    node = FakeKeeperNode()
    forwarder = RenewalForwarder("n1", node.renew)
    for node.is_away in (True, True, False, False):
        await renew(forwarder, [lease("a")])
    assert [record.getMessage() for record in caplog.records] == [
        "renewals can't be forwarded to n1, and are refused: no registry is available: it is away",
        "renewals are forwarded to n1 again",
    ]
    await forwarder.close()


async def test_a_renewal_without_an_answer_in_time_still_reaches_the_node() -> None:
    node = FakeKeeperNode()
    node.delay = 2 * renewal_forwarder.RENEWAL_ANSWER_TIMEOUT
    forwarder = RenewalForwarder("n1", node.renew)
    assert await renew(forwarder, [lease("a")]) is None
    await asyncio.sleep(node.delay)
    assert node.requests == [["a"]]
    await forwarder.close()


async def test_past_its_bound_a_renewal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal_forwarder, "MAX_WAITING_LEASES", 2)
    forwarder = RenewalForwarder("n1", FakeKeeperNode().renew)
    answers = await asyncio.gather(*(renew(forwarder, [lease(f"i{n}")]) for n in range(3)))
    assert answers == [RenewalAnswer(()), RenewalAnswer(()), None]
    assert await renew(forwarder, [lease("x")]) == RenewalAnswer(()), "there is room again"
    await forwarder.close()


async def test_a_client_that_fails_does_not_cost_the_others_their_answers(caplog: pytest.LogCaptureFixture) -> None:
    forwarder = RenewalForwarder("n1", FakeKeeperNode().renew)

    def fail(answer: RenewalAnswer | None) -> None:
        raise RuntimeError("the connection is gone")

    forwarder.renew([lease("a")], fail)
    assert await renew(forwarder, [lease("b")]) == RenewalAnswer(())
    assert "the answer to a renewal could not be sent" in caplog.text
    await forwarder.close()


async def test_services_that_the_node_does_not_keep_are_named_to_every_client() -> None:
    async def send(leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        return wire.RenewalResult("e1", 1, 0, [], ["orders"])

    forwarder = RenewalForwarder("n1", send)
    answers = await asyncio.gather(*(renew(forwarder, [lease(id)]) for id in "ab"))
    assert answers == [RenewalAnswer((), frozenset({"orders"}))] * 2
    await forwarder.close()


async def test_requests_under_way_are_bounded_and_the_next_one_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_RENEWALS", 1)
    monkeypatch.setattr(renewal_forwarder, "MAX_CONCURRENT_RENEWAL_REQUESTS", 2)
    under_way, most, is_full, may_answer = 0, 0, asyncio.Event(), asyncio.Event()

    async def send(leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 2:
            is_full.set()
        await may_answer.wait()
        under_way -= 1
        return wire.RenewalResult("e1", 1, len(leases))

    forwarder = RenewalForwarder("n1", send)
    answers = [asyncio.create_task(renew(forwarder, [lease(f"i{n}")])) for n in range(5)]
    await is_full.wait()
    may_answer.set()
    assert await asyncio.gather(*answers) == [RenewalAnswer(())] * 5
    assert most == 2
    await forwarder.close()


async def test_who_waits_when_the_forwarder_closes_gets_an_answer() -> None:
    is_sending = asyncio.Event()

    async def send(leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult:
        is_sending.set()
        await asyncio.Event().wait()
        raise AssertionError

    forwarder = RenewalForwarder("n1", send)
    answers = [asyncio.create_task(renew(forwarder, [lease("a", holder)])) for holder in ("first", "second")]
    await is_sending.wait()
    await forwarder.close()
    assert await asyncio.gather(*answers) == [None, None]
    await forwarder.close()
