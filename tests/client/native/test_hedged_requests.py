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
    """Three nodes, each of which answers when the test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.nodes = RegistryNodes(["http://a", "http://b", "http://c"], Random(1))
        self.first, self.second, self.third = self.nodes.order(0.0)
        self.answers = {url: asyncio.get_running_loop().create_future() for url in self.nodes.urls}
        self.heard: dict[str, OnProgress] = {}
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    async def ask(self, node: str, heard: OnProgress) -> str:
        self.heard[node] = heard
        try:
            return str(await self.answers[node])
        except asyncio.CancelledError:
            self.cancelled.append(node)
            raise

    async def discard(self, answer: str) -> None:
        self.discarded.append(answer)

    async def begin(self, silence: float | None = HEDGE_DELAY) -> asyncio.Task[str]:
        answering = first_answer(self.nodes, self.ask, self.clock, hedge_delay=silence, discard=self.discard)
        task = asyncio.create_task(answering)
        await run_until_idle()
        return task


async def test_only_one_node_is_asked_if_it_answers_in_time() -> None:
    asked = AnsweringNodes()
    task = await asked.begin()
    await asked.clock.advance(HEDGE_DELAY - 0.01)
    asked.answers[asked.first].set_result("one")
    assert await task == "one"
    assert list(asked.heard) == [asked.first]


async def test_a_silent_node_loses_to_the_first_that_answers_and_is_asked_last_afterwards() -> None:
    asked = AnsweringNodes()
    task = await asked.begin()
    await asked.clock.advance(HEDGE_DELAY)
    assert list(asked.heard) == [asked.first, asked.second]
    await asked.clock.advance(HEDGE_DELAY)
    asked.answers[asked.third].set_result("three")
    assert await task == "three"
    assert asked.cancelled == [asked.first, asked.second]
    assert asked.nodes.order(asked.clock.now()) == [asked.third, asked.first, asked.second]
    asked.nodes.mark_failed(asked.third)
    assert asked.nodes.current(asked.clock.now()) == asked.third, "those that hung come last"


async def test_a_slow_node_that_still_answers_first_does_not_count_as_hung() -> None:
    asked = AnsweringNodes()
    task = await asked.begin()
    await asked.clock.advance(HEDGE_DELAY + 0.1)
    asked.answers[asked.first].set_result("one")
    assert await task == "one"
    assert asked.nodes.order(asked.clock.now()) == [asked.first, asked.second, asked.third]


async def test_a_failed_node_causes_no_delay() -> None:
    asked = AnsweringNodes()
    asked.answers[asked.first].set_exception(NodeUnreachable("refused"))
    task = await asked.begin()
    asked.answers[asked.second].set_result("two")
    assert await task == "two"
    assert asked.nodes.order(0.0) == [asked.second, asked.third, asked.first]


async def test_a_failed_node_causes_no_delay_while_another_hangs() -> None:
    asked = AnsweringNodes()
    asked.answers[asked.second].set_exception(NodeUnreachable("refused"))
    task = await asked.begin()
    await asked.clock.advance(HEDGE_DELAY)
    assert list(asked.heard) == [asked.first, asked.second, asked.third]
    asked.answers[asked.third].set_result("three")
    assert await task == "three"


async def test_a_node_that_sends_bytes_is_not_silent() -> None:
    asked = AnsweringNodes()
    task = await asked.begin()
    for _ in range(5):
        await asked.clock.advance(HEDGE_DELAY - 0.1)
        asked.heard[asked.first]()
    assert list(asked.heard) == [asked.first]
    asked.answers[asked.first].set_result("one")
    assert await task == "one"


async def test_a_request_without_hedging_is_sent_to_one_node_at_a_time() -> None:
    asked = AnsweringNodes()
    task = await asked.begin(silence=None)
    await asked.clock.advance(60.0)
    assert list(asked.heard) == [asked.first]
    asked.answers[asked.first].set_exception(NodeUnreachable("it did not answer in time"))
    asked.answers[asked.second].set_result("two")
    assert await task == "two"


async def test_a_refusal_is_an_answer() -> None:
    asked = AnsweringNodes()
    asked.answers[asked.first].set_exception(Invalid("port", "must be a port"))
    with pytest.raises(Invalid):
        await (await asked.begin())
    assert list(asked.heard) == [asked.first]


async def test_when_no_node_answers_the_error_names_each() -> None:
    asked = AnsweringNodes()
    for url, answer in asked.answers.items():
        answer.set_exception(NodeUnreachable(f"no way to {url[-1]}"))
    with pytest.raises(RegistryUnavailable) as error:
        await (await asked.begin())
    assert all(f"{url}: no way to {url[-1]}" in str(error.value) for url in asked.nodes.urls)


async def test_an_answer_that_comes_too_late_is_closed() -> None:
    asked = AnsweringNodes()
    task = await asked.begin()
    await asked.clock.advance(HEDGE_DELAY)
    asked.answers[asked.first].set_result("one")
    asked.answers[asked.second].set_result("two")
    assert {await task, *asked.discarded} == {"one", "two"}


async def test_giving_up_leaves_nothing_behind() -> None:
    asked = AnsweringNodes()
    task = await asked.begin()
    await asked.clock.advance(HEDGE_DELAY)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asked.cancelled == [asked.first, asked.second]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_no_error_shows_the_password_of_a_url() -> None:
    nodes = RegistryNodes(["http://me:hidden@a", "http://me:hidden@b"], Random(1))

    async def ask(node: str, heard: OnProgress) -> str:
        raise NodeUnreachable("refused")

    with pytest.raises(RegistryUnavailable, match="http://a: refused") as failed:
        await first_answer(nodes, ask, FakeClock(), hedge_delay=HEDGE_DELAY)
    assert "hidden" not in str(failed.value)
    with pytest.raises(Invalid, match="such as") as wrong:
        parse_urls("http://me:hidden@[")
    assert "hidden" not in str(wrong.value)
