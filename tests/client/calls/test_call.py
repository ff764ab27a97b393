from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.balance.load_tracker import EndpointLoad, LoadTracker
from adsum.balance.picker import NoEndpoint
from adsum.balance.retry_budget import RetryBudget
from adsum.client.calls.call import Call
from adsum.client.calls.failures import RETRY_RULES, RETRYABLE_STATUSES, CallFailed, FailureKind
from adsum.client.calls.options import CallOptions
from adsum.client.calls.pick import Pick
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint
from tests.client.fakes import endpoint


class CountingChannel:
    """Implements `CallChannel` with a list of endpoints and its own clock, and records picks."""

    service = "orders"

    def __init__(self, count: int = 3, budget: RetryBudget | None = None) -> None:
        self.rng = Random(1)
        self.endpoints = [endpoint(f"i{n}", port=8000 + n) for n in range(count)]
        self.loads = LoadTracker()
        self.time = 100.0
        self.picks: list[Pick] = []
        self.ends: list[tuple[str, bool, float]] = []
        self.deposits = 0
        self.budget = budget or RetryBudget()
        self.warning = ""

    @property
    def view_warning(self) -> str:
        return self.warning

    @property
    def usable_count(self) -> int:
        return len(self.endpoints)

    @property
    def in_flight(self) -> int:
        return sum(self.loads.load_of(pick.endpoint.id).in_flight for pick in self.picks)

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Pick:
        for candidate in self.endpoints:
            if not exclude or candidate.id not in exclude:
                pick = Pick(self, candidate, self.loads.start(candidate.id), self.time)
                self.picks.append(pick)
                return pick
        raise NoEndpoint("no endpoint is left")

    def record_result(self, pick: Pick, load: EndpointLoad, ok: bool, latency: float | None) -> None:
        duration = self.time - pick.started_at if latency is None else latency
        load.finish(ok, duration, self.time)
        self.ends.append((pick.endpoint.id, ok, duration))

    def begin_call(self) -> None:
        self.deposits += 1
        self.budget.deposit(self.time)

    def take_retry(self) -> bool:
        return self.budget.withdraw(self.time)

    def now(self) -> float:
        return self.time

    def call(self, *, idempotent: bool = True, options: CallOptions | None = None) -> Call:
        return Call(self, options or CallOptions(), idempotent=idempotent)


def test_an_answer_ends_the_call_and_the_pick_once_the_body_is_read() -> None:
    channel = CountingChannel()
    attempt = channel.call().next_try()
    channel.time += 0.25
    assert not attempt.should_retry(200)
    channel.time += 5.0
    assert channel.in_flight == 1, "a call is in flight until its body was read"
    attempt.finish()
    attempt.finish()
    assert channel.ends == [("i0", True, 0.25)], "latency is the time to the head"
    assert channel.in_flight == 0


def test_a_try_that_could_not_connect_is_retried_for_every_request() -> None:
    channel = CountingChannel()
    call = channel.call(idempotent=False)
    first = call.next_try()
    first.record_failure(FailureKind.CONNECT, "connection refused")
    second = call.next_try()
    assert (first.endpoint.id, second.endpoint.id) == ("i0", "i1")
    assert (second.number, second.pause) == (2, 0.0)
    assert channel.ends == [("i0", False, 0.0)]


@pytest.mark.parametrize("kind", [FailureKind.BROKEN, FailureKind.TIMEOUT])
def test_an_unsafe_request_that_was_sent_is_never_sent_again(kind: FailureKind) -> None:
    call = CountingChannel().call(idempotent=False)
    call.next_try().record_failure(kind, "the connection broke")
    with pytest.raises(CallFailed, match="may have taken effect"):
        call.next_try()


@pytest.mark.parametrize("status", sorted(RETRYABLE_STATUSES))
def test_a_retryable_answer_to_an_idempotent_request_is_discarded(status: int) -> None:
    channel = CountingChannel()
    call = channel.call()
    assert call.next_try().should_retry(status)
    assert call.next_try().endpoint.id == "i1"
    assert channel.ends == [("i0", False, 0.0)]


def test_an_unsafe_request_keeps_the_answer_it_got() -> None:
    channel = CountingChannel()
    attempt = channel.call(idempotent=False).next_try()
    assert not attempt.should_retry(503)
    attempt.finish()
    assert channel.ends == [("i0", False, 0.0)], "the answer counts against the endpoint"


def test_the_last_try_keeps_the_answer_it_got() -> None:
    channel = CountingChannel()
    call = channel.call(options=CallOptions(tries=2))
    assert call.next_try().should_retry(503)
    assert not call.next_try().should_retry(503)


@pytest.mark.parametrize(("status", "ok"), [(200, True), (404, True), (499, True), (500, False), (503, False)])
def test_only_server_errors_count_against_an_endpoint(status: int, ok: bool) -> None:
    channel = CountingChannel()
    attempt = channel.call(options=CallOptions(tries=1)).next_try()
    attempt.should_retry(status)
    attempt.finish()
    assert channel.ends == [("i0", ok, 0.0)]


def test_a_body_that_breaks_off_counts_against_the_endpoint() -> None:
    channel = CountingChannel()
    attempt = channel.call().next_try()
    attempt.should_retry(200)
    attempt.finish(ok=False)
    assert channel.ends == [("i0", False, 0.0)]


def test_failures_on_our_side_do_not_count_against_an_endpoint() -> None:
    channel = CountingChannel()
    call = channel.call(idempotent=False)
    call.next_try().record_failure(FailureKind.UNSENT, "no free connection")
    assert channel.ends == []
    assert channel.in_flight == 0
    assert call.next_try().endpoint.id == "i1"


def test_the_same_endpoint_is_tried_again_only_after_a_pause() -> None:
    channel = CountingChannel(count=1)
    call = channel.call()
    call.next_try().record_failure(FailureKind.CONNECT, "refused")
    again = call.next_try()
    assert again.endpoint.id == "i0"
    assert again.pause > 0.0


def test_when_all_endpoints_were_tried_they_are_tried_again() -> None:
    call = CountingChannel(count=2).call(options=CallOptions(tries=4))
    seen = []
    for _ in range(4):
        attempt = call.next_try()
        seen.append((attempt.endpoint.id, attempt.pause > 0.0))
        attempt.record_failure(FailureKind.CONNECT, "refused")
    assert seen == [("i0", False), ("i1", False), ("i0", True), ("i1", False)]


def test_a_try_may_take_what_is_left_of_the_deadline() -> None:
    channel = CountingChannel()
    call = channel.call(options=CallOptions(try_timeout=2.0, deadline=3.0))
    first = call.next_try()
    assert first.timeout == 2.0
    channel.time += 2.0
    first.record_failure(FailureKind.TIMEOUT, "no answer")
    assert call.next_try().timeout == pytest.approx(1.0)


def test_past_the_deadline_nothing_is_tried() -> None:
    channel = CountingChannel()
    call = channel.call(options=CallOptions(deadline=1.0))
    attempt = call.next_try()
    channel.time += 1.0
    attempt.record_failure(FailureKind.TIMEOUT, "no answer")
    with pytest.raises(CallFailed, match="its deadline of 1 s has passed"):
        call.next_try()
    assert channel.in_flight == 0


def test_a_pause_longer_than_the_deadline_ends_the_call() -> None:
    channel = CountingChannel(count=1)
    call = channel.call(options=CallOptions(deadline=0.01))
    call.next_try().record_failure(FailureKind.CONNECT, "refused")
    with pytest.raises(CallFailed, match="deadline"):
        call.next_try()
    assert channel.in_flight == 0


def test_a_spent_retry_budget_ends_the_call() -> None:
    call = CountingChannel(budget=RetryBudget(ratio=0.0, floor=0.0)).call()
    call.next_try().record_failure(FailureKind.CONNECT, "refused")
    with pytest.raises(CallFailed, match="retry budget"):
        call.next_try()


def test_a_call_without_an_endpoint_raises() -> None:
    with pytest.raises(NoEndpoint):
        CountingChannel(count=0).call().next_try()


def test_a_call_ends_when_all_endpoints_are_gone() -> None:
    channel = CountingChannel()
    call = channel.call()
    assert call.next_try().should_retry(503)
    channel.endpoints.clear()
    with pytest.raises(CallFailed, match="no endpoint is left"):
        call.next_try()


def test_a_failed_call_states_the_service_each_try_and_the_reason_for_the_end() -> None:
    channel = CountingChannel()
    call = channel.call(options=CallOptions(tries=2))
    first = call.next_try()
    channel.time += 0.003
    first.record_failure(FailureKind.CONNECT, "connection refused")
    second = call.next_try()
    channel.time += 1.0
    second.record_failure(FailureKind.TIMEOUT, "no answer")
    with pytest.raises(CallFailed) as failed:
        call.next_try()
    assert str(failed.value) == (
        "orders: no answer after 2 tries: 10.0.0.1:8000 (i0): connection refused after 3 ms; "
        "10.0.0.1:8001 (i1): no answer after 1 s. Not tried again: it may be tried 2 times at most."
    )
    assert [attempt.kind for attempt in failed.value.tries] == [FailureKind.CONNECT, FailureKind.TIMEOUT]


def test_a_cancelled_call_does_not_count_for_the_endpoint() -> None:
    channel = CountingChannel()
    with pytest.raises(KeyboardInterrupt), channel.call().next_try():
        raise KeyboardInterrupt
    assert channel.ends == []
    assert channel.in_flight == 0


def test_the_next_try_abandons_the_one_before() -> None:
    channel = CountingChannel()
    call = channel.call()
    call.next_try()
    call.next_try()
    assert channel.in_flight == 1


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"tries": 101}, {"try_timeout": 0.0}, {"deadline": float("nan")}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid) as refused:
        CallOptions(**wrong)  # type: ignore[arg-type]
    assert refused.value.field == next(iter(wrong))


@dataclass(frozen=True)
class TryOutcome:
    """The outcome of one try."""

    kind: FailureKind | None
    status: int = 200
    duration: float = 0.0
    escapes: bool = False


steps = st.builds(
    TryOutcome,
    st.none() | st.sampled_from([kind for kind in FailureKind if kind is not FailureKind.STATUS]),
    st.sampled_from([200, 404, 500, 502, 503, 504]),
    st.floats(0.0, 3.0),
    st.booleans(),
)


@given(
    script=st.lists(steps, min_size=30, max_size=30),
    idempotent=st.booleans(),
    count=st.integers(0, 4),
    tries=st.integers(1, 6),
    deadline=st.none() | st.floats(0.1, 5.0),
    floor=st.sampled_from([0.0, 0.1, 10.0]),
)
def test_tries_are_bounded_unsafe_calls_go_once_and_every_pick_ends_once(
    script: list[TryOutcome], idempotent: bool, count: int, tries: int, deadline: float | None, floor: float
) -> None:
    channel = CountingChannel(count, RetryBudget(0.0, floor))
    call = channel.call(idempotent=idempotent, options=CallOptions(tries=tries, deadline=deadline))
    made, sent, may_have_arrived = 0, 0, False
    began = channel.time
    for step in script:
        try:
            attempt = call.next_try()
        except (CallFailed, NoEndpoint):
            break
        made += 1
        assert not may_have_arrived or idempotent
        assert attempt.timeout is None or attempt.timeout > 0.0
        channel.time += attempt.pause
        duration = step.duration if attempt.timeout is None else min(step.duration, attempt.timeout)
        channel.time += duration
        try:
            with attempt:
                if step.escapes and step.kind is not None:
                    raise KeyboardInterrupt
                if step.kind is not None:
                    attempt.record_failure(step.kind, "it failed")
        except KeyboardInterrupt:
            break
        if step.kind is not None:
            may_have_arrived = may_have_arrived or not RETRY_RULES[step.kind].always_retryable
            continue
        may_have_arrived = True
        if not attempt.should_retry(step.status):
            sent += 1
            attempt.finish()
            break
    assert made <= tries
    assert sent <= 1
    assert channel.deposits == min(made, 1)
    assert all(not pick.is_open for pick in channel.picks)
    assert channel.in_flight == 0
    assert len(channel.ends) <= len(channel.picks)
    if deadline is not None:
        assert channel.time <= began + deadline + 1e-6


def test_an_endpoint_of_a_try_is_the_one_that_was_picked() -> None:
    attempt = CountingChannel().call().next_try()
    chosen: Endpoint = attempt.endpoint
    assert chosen.url == "http://10.0.0.1:8000"
