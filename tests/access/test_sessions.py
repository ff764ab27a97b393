"""Sessions: ended once, when the rights end, and forgotten when they are closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.access.sessions import EXPIRY_INTERVAL, Sessions
from adsum.core.access.principal import Principal
from tests.access.tokens import id_of
from tests.core.access.principals import proven
from tests.support.fakes import FakeClock

A, B = id_of(1), id_of(2)


class Ended:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sessions(clock: FakeClock) -> Sessions:
    return Sessions(clock)


def principal(token_id: str = A, secret_id: str = "", expires: float | None = None) -> Principal:
    return replace(proven("read:*"), token_id=token_id, secret_id=secret_id, expires=expires)


def test_the_sessions_of_a_token_are_ended_and_no_others(sessions: Sessions) -> None:
    one, two, other = Ended(), Ended(), Ended()
    with sessions.open(principal(A), one), sessions.open(principal(A), two), sessions.open(principal(B), other):
        assert sessions.end([A]) == 2
        assert (one.count, two.count, other.count) == (1, 1, 0)
        assert len(sessions) == 1
    assert len(sessions) == 0


def test_a_session_is_ended_once(sessions: Sessions, clock: FakeClock) -> None:
    ended = Ended()
    with sessions.open(principal(expires=clock.wall()), ended):
        assert sessions.expire(clock.wall()) == 1
        assert sessions.end([A]) == sessions.expire(clock.wall()) == 0
    assert sessions.end([A]) == 0
    assert ended.count == 1


def test_a_closed_session_is_not_ended(sessions: Sessions) -> None:
    ended = Ended()
    with sessions.open(principal(expires=0.0), ended):
        pass
    assert sessions.end([A]) == sessions.expire(1.0) == ended.count == 0


def test_the_same_function_may_end_several_sessions(sessions: Sessions) -> None:
    ended = Ended()
    with sessions.open(principal(), ended):
        with sessions.open(principal(), ended):
            assert len(sessions) == 2
        assert sessions.end([A]) == 1
    assert ended.count == 1


def test_a_session_of_a_principal_whose_rights_have_ended_is_ended_when_it_is_opened(sessions: Sessions) -> None:
    ended = Ended()
    with sessions.open(principal(), ended, is_current=False):
        assert (ended.count, len(sessions)) == (1, 0)
    assert ended.count == 1


def test_a_session_that_another_one_closes_while_it_is_ended_is_not_ended(sessions: Sessions) -> None:
    one, other, ended = ExitStack(), ExitStack(), Ended()

    def close(stack: ExitStack) -> None:
        ended()
        stack.close()

    one.enter_context(sessions.open(principal(), partial(close, other)))
    other.enter_context(sessions.open(principal(), partial(close, one)))
    sessions.end([A])
    assert (ended.count, len(sessions)) == (1, 0)
    one.close()
    other.close()


def test_a_session_that_can_not_be_ended_does_not_keep_the_others(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    ends = [Ended() for _ in range(5)]
    with ExitStack() as stack:
        callbacks: list[Callable[[], None]] = [*ends[:2], fail, *ends[2:]]
        for end in callbacks:
            stack.enter_context(sessions.open(principal(), end))
        with caplog.at_level(logging.ERROR):
            sessions.end([A])
    assert [ended.count for ended in ends] == [1] * 5
    assert "could not be ended" in caplog.text


def test_a_rotation_ends_sessions_of_secrets_that_are_gone_and_limits_the_others(sessions: Sessions) -> None:
    gone, limited, newest, certificate = Ended(), Ended(), Ended(), Ended()
    with (
        sessions.open(principal(secret_id="gone"), gone),
        sessions.open(principal(secret_id="older"), limited),
        sessions.open(principal(secret_id="newest"), newest),
        sessions.open(principal(), certificate),
    ):
        assert sessions.rotate(A, {"older": 50.0, "newest": None}) == 1
        assert [end.count for end in (gone, limited, newest, certificate)] == [1, 0, 0, 0]
        assert sessions.expire(49.9) == 0
        assert sessions.expire(50.0) == 1
        assert [end.count for end in (gone, limited, newest, certificate)] == [1, 1, 0, 0]


def test_a_rotation_never_lengthens_a_session(sessions: Sessions) -> None:
    ended = Ended()
    with sessions.open(principal(secret_id="x", expires=50.0), ended):
        sessions.rotate(A, {"x": 90.0})
        sessions.rotate(A, {"x": None})
        assert sessions.expire(50.0) == 1


async def test_an_expired_session_is_ended_within_the_interval(sessions: Sessions, clock: FakeClock) -> None:
    running = asyncio.create_task(sessions.run())
    ended, later = Ended(), Ended()
    with (
        sessions.open(principal(expires=clock.wall() + 10.0), ended),
        sessions.open(principal(expires=clock.wall() + 20.0), later),
    ):
        await clock.advance(9.9)
        assert ended.count == 0
        await clock.advance(0.1 + EXPIRY_INTERVAL)
        assert (ended.count, later.count) == (1, 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@given(
    st.lists(st.tuples(st.sampled_from(["open", "close", "end", "expire", "rotate"]), st.integers(0, 5)), max_size=30)
)
def test_every_session_is_ended_at_most_once_and_none_is_left(steps: list[tuple[str, int]]) -> None:
    sessions = Sessions(FakeClock())
    opened: list[tuple[ExitStack, Ended]] = []
    for step, number in steps:
        if step == "open":
            stack, ended = ExitStack(), Ended()
            who = principal((A, B)[number % 2], ("", "s1", "s2")[number % 3], (None, 5.0)[number // 3])
            stack.enter_context(sessions.open(who, ended))
            opened.append((stack, ended))
        elif step == "close" and opened:
            opened[number % len(opened)][0].close()
        elif step == "end":
            sessions.end([(A, B)[number % 2]])
        elif step == "expire":
            sessions.expire(float(number) * 2)
        else:
            sessions.rotate((A, B)[number % 2], {"s1": float(number)})
    for stack, ended in opened:
        stack.close()
        assert ended.count <= 1
    assert len(sessions) == 0
    assert sessions.end([A, B]) == sessions.expire(1e9) == 0
