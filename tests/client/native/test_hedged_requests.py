from __future__ import annotations

import asyncio
from random import Random

import pytest

from adsum.client.errors import NodeUnreachable, RegistryUnavailable
from adsum.client.native.hedged_requests import HEDGE_DELAY, OnProgress, first_answer
from adsum.client.native.nodes import RegistryNodes, parse_urls
from adsum.core.errors import Invalid
from tests.support.fakes import FakeClock, run_until_idle


class AnsweringNodes:
    """Three nodes, each of which answers when the test sets its answer."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.nodes = RegistryNodes(["http://a", "http://b", "http://c"], Random(1))
        self.first, self.second, self.third = self.nodes.order(0.0)
        self.answers = {url: asyncio.get_running_loop().create_future() for url in self.nodes.urls}
        self.on_progress: dict[str, OnProgress] = {}
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    async def request(self, node: str, on_progress: OnProgress) -> str:
        self.on_progress[node] = on_progress
        try:
            return str(await self.answers[node])
        except asyncio.CancelledError:
            self.cancelled.append(node)
            raise

    async def discard(self, answer: str) -> None:
        self.discarded.append(answer)

    async def begin(self, hedge_delay: float | None = HEDGE_DELAY) -> asyncio.Task[str]:
        answering = first_answer(self.nodes, self.request, self.clock, hedge_delay=hedge_delay, discard=self.discard)
        task = asyncio.create_task(answering)
        await run_until_idle()
        return task


async def test_only_one_node_is_tried_if_it_answers_in_time() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin()
    await fixture.clock.advance(HEDGE_DELAY - 0.01)
    fixture.answers[fixture.first].set_result("one")
    assert await task == "one"
    assert list(fixture.on_progress) == [fixture.first]


async def test_a_silent_node_loses_to_the_first_that_answers_and_is_tried_last_afterwards() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin()
    await fixture.clock.advance(HEDGE_DELAY)
    assert list(fixture.on_progress) == [fixture.first, fixture.second]
    await fixture.clock.advance(HEDGE_DELAY)
    fixture.answers[fixture.third].set_result("three")
    assert await task == "three"
    assert fixture.cancelled == [fixture.first, fixture.second]
    assert fixture.nodes.order(fixture.clock.now()) == [fixture.third, fixture.first, fixture.second]
    fixture.nodes.mark_failed(fixture.third)
    assert fixture.nodes.current(fixture.clock.now()) == fixture.third, "nodes that hung come last"


async def test_a_slow_node_that_still_answers_first_does_not_count_as_hung() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin()
    await fixture.clock.advance(HEDGE_DELAY + 0.1)
    fixture.answers[fixture.first].set_result("one")
    assert await task == "one"
    assert fixture.nodes.order(fixture.clock.now()) == [fixture.first, fixture.second, fixture.third]


async def test_a_failed_node_causes_no_delay() -> None:
    fixture = AnsweringNodes()
    fixture.answers[fixture.first].set_exception(NodeUnreachable("refused"))
    task = await fixture.begin()
    fixture.answers[fixture.second].set_result("two")
    assert await task == "two"
    assert fixture.nodes.order(0.0) == [fixture.second, fixture.third, fixture.first]


async def test_a_failed_node_causes_no_delay_while_another_hangs() -> None:
    fixture = AnsweringNodes()
    fixture.answers[fixture.second].set_exception(NodeUnreachable("refused"))
    task = await fixture.begin()
    await fixture.clock.advance(HEDGE_DELAY)
    assert list(fixture.on_progress) == [fixture.first, fixture.second, fixture.third]
    fixture.answers[fixture.third].set_result("three")
    assert await task == "three"


async def test_a_node_that_sends_bytes_is_not_silent() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin()
    for _ in range(5):
        await fixture.clock.advance(HEDGE_DELAY - 0.1)
        fixture.on_progress[fixture.first]()
    assert list(fixture.on_progress) == [fixture.first]
    fixture.answers[fixture.first].set_result("one")
    assert await task == "one"


async def test_a_request_without_hedging_is_sent_to_one_node_at_a_time() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin(hedge_delay=None)
    await fixture.clock.advance(60.0)
    assert list(fixture.on_progress) == [fixture.first]
    fixture.answers[fixture.first].set_exception(NodeUnreachable("it did not answer in time"))
    fixture.answers[fixture.second].set_result("two")
    assert await task == "two"


async def test_a_refusal_is_an_answer() -> None:
    fixture = AnsweringNodes()
    fixture.answers[fixture.first].set_exception(Invalid("port", "must be a port"))
    with pytest.raises(Invalid):
        await (await fixture.begin())
    assert list(fixture.on_progress) == [fixture.first]


async def test_when_no_node_answers_the_error_names_every_node() -> None:
    fixture = AnsweringNodes()
    for url, answer in fixture.answers.items():
        answer.set_exception(NodeUnreachable(f"no way to {url[-1]}"))
    with pytest.raises(RegistryUnavailable) as error:
        await (await fixture.begin())
    assert all(f"{url}: no way to {url[-1]}" in str(error.value) for url in fixture.nodes.urls)


async def test_an_answer_that_comes_too_late_is_closed() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin()
    await fixture.clock.advance(HEDGE_DELAY)
    fixture.answers[fixture.first].set_result("one")
    fixture.answers[fixture.second].set_result("two")
    assert {await task, *fixture.discarded} == {"one", "two"}


async def test_a_cancelled_request_leaves_no_task() -> None:
    fixture = AnsweringNodes()
    task = await fixture.begin()
    await fixture.clock.advance(HEDGE_DELAY)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert fixture.cancelled == [fixture.first, fixture.second]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_no_error_shows_the_password_of_a_url() -> None:
    nodes = RegistryNodes(["http://me:hidden@a", "http://me:hidden@b"], Random(1))

    async def request(node: str, on_progress: OnProgress) -> str:
        raise NodeUnreachable("refused")

    with pytest.raises(RegistryUnavailable, match="http://a: refused") as failed:
        await first_answer(nodes, request, FakeClock(), hedge_delay=HEDGE_DELAY)
    assert "hidden" not in str(failed.value)
    with pytest.raises(Invalid, match="such as") as wrong:
        parse_urls("http://me:hidden@[")
    assert "hidden" not in str(wrong.value)
