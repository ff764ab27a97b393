from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from adsum.client.errors import (
    AnswerLost,
    AnswerOverdue,
    InstanceForgotten,
    NodeDeclined,
    NodeNotConnected,
    NodeUnreachable,
    RegistryUnavailable,
)
from adsum.client.native.nodes import RegistryNodes
from adsum.client.native.waiting_request import ROUND_PAUSE, WaitingRequest
from adsum.core.errors import UnknownInstance
from tests.support.fakes import FakeClock, run_until_idle

WAIT = 8.0
BROKEN = NodeUnreachable("Server disconnected without sending a response.")
REFUSED = NodeNotConnected("All connection attempts failed")
STOPPING = NodeUnreachable("orders/o1 is draining, but the node is stopping")


class ScriptedNodes:
    """Nodes that give the test's answers one after the other, and then are silent."""

    def __init__(self, *nodes: str) -> None:
        self.clock = FakeClock()
        self.nodes = RegistryNodes(nodes, Random(1))
        self.requests: list[tuple[str, float]] = []
        self.searches: list[float] = []
        self._answers: asyncio.Queue[str | Exception] = asyncio.Queue()

    def answer(self, *answers: str | Exception) -> None:
        for answer in answers:
            self._answers.put_nowait(answer)

    async def begin(self, wait: float = WAIT) -> asyncio.Task[str]:
        task = asyncio.create_task(WaitingRequest(self.nodes, self.clock, wait).run(self._request, self._find_node))
        await run_until_idle()
        return task

    async def _request(self, node: str, left: float) -> str:
        self.requests.append((node, round(left, 3)))
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _find_node(self, left: float) -> str:
        self.searches.append(left)
        return self.nodes.current(self.clock.now())


@pytest.mark.parametrize("lost", [BROKEN, STOPPING])
@pytest.mark.parametrize("meanwhile", [(), (REFUSED, REFUSED), (NodeDeclined("the catalog is not loaded yet"),)])
async def test_a_request_whose_node_is_lost_is_sent_again_for_the_rest_of_the_wait(
    lost: Exception, meanwhile: Sequence[Exception]
) -> None:
    fixture = ScriptedNodes("http://a")
    task = await fixture.begin()
    await fixture.clock.advance(1.0)
    fixture.answer(lost, *meanwhile, "confirmed")
    await run_until_idle()
    for n in range(len(meanwhile) + 1):
        assert len(fixture.requests) == n + 1, "there is a pause before the next round"
        await fixture.clock.advance(ROUND_PAUSE)
    assert await task == "confirmed"
    assert fixture.requests[-1] == ("http://a", WAIT - 1.0 - (len(meanwhile) + 1) * ROUND_PAUSE)


async def test_a_request_whose_node_is_lost_goes_to_the_next_node_at_once() -> None:
    fixture = ScriptedNodes("http://a", "http://b")
    task = await fixture.begin()
    await fixture.clock.advance(1.0)
    fixture.answer(BROKEN, "confirmed")
    assert await task == "confirmed"
    assert [left for _, left in fixture.requests] == [WAIT, WAIT - 1.0]
    assert len({node for node, _ in fixture.requests}) == 2


async def test_a_registry_that_did_not_receive_the_request_is_unavailable_at_once() -> None:
    fixture = ScriptedNodes("http://a", "http://b")
    fixture.answer(REFUSED, REFUSED)
    with pytest.raises(RegistryUnavailable):
        await (await fixture.begin())


async def test_a_request_with_no_wait_is_not_sent_again() -> None:
    fixture = ScriptedNodes("http://a")
    fixture.answer(BROKEN)
    with pytest.raises(RegistryUnavailable):
        await (await fixture.begin(0.0))


async def test_a_registry_that_stays_lost_raises_after_the_wait_with_both_reasons() -> None:
    fixture = ScriptedNodes("http://a")
    task = await fixture.begin(1.0)
    fixture.answer(STOPPING, REFUSED, REFUSED, REFUSED)
    await fixture.clock.advance(0.9)
    assert not task.done()
    await fixture.clock.advance(0.2)
    with pytest.raises(AnswerLost, match=r"but the node is stopping; then: http://a: All connection attempts"):
        await task


async def test_a_registry_that_declines_to_the_end_is_unavailable_with_its_reason() -> None:
    fixture = ScriptedNodes("http://a")
    fixture.answer(*[NodeDeclined("etcd is away")] * 3)
    task = await fixture.begin(1.0)
    await fixture.clock.advance(1.1)
    with pytest.raises(RegistryUnavailable, match="etcd is away") as error:
        await task
    assert error.value.declined


async def test_a_node_that_stays_silent_makes_the_answer_overdue() -> None:
    fixture = ScriptedNodes("http://a")
    task = await fixture.begin()
    await fixture.clock.advance(WAIT + 0.1)
    fixture.answer(NodeUnreachable("it did not answer in time"))
    with pytest.raises(AnswerOverdue):
        await task


async def test_an_instance_that_is_unknown_after_a_loss_was_forgotten_and_one_that_never_was_known_is_not() -> None:
    unknown = UnknownInstance("orders", "o1")
    fixture = ScriptedNodes("http://a")
    fixture.answer(unknown)
    with pytest.raises(UnknownInstance) as never:
        await (await fixture.begin())
    assert not isinstance(never.value, InstanceForgotten)
    fixture = ScriptedNodes("http://a")
    fixture.answer(BROKEN, unknown)
    task = await fixture.begin()
    await fixture.clock.advance(ROUND_PAUSE)
    with pytest.raises(InstanceForgotten, match="o1"):
        await task
