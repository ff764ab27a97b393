"""Load balancing at a real Envoy: shares of targets, mirrors, hashing, outlier ejection and panic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from adsum.core.model import Listing, Status
from adsum.gateway.intent.actions import HashPolicy, Mirror, Retries, Target
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import LbPolicy, OutlierSettings, Upstream
from tests.gateway.echo_services import ReceivedRequests, echo_service, listing
from tests.gateway.envoy_gateway import running_gateway
from tests.gateway.real_envoy import ENVOY_TIMEOUT, free_port, needs_envoy

pytestmark = needs_envoy

KEYS = [f"user-{n}" for n in range(200)]
RING, MAGLEV = LbPolicy.RING_HASH, LbPolicy.MAGLEV
HASHING = ("ring_hash", "maglev")


def route(*to: Target, **more: Any) -> Route:
    return Route("main", path=PathMatch(MatchKind.PREFIX, "/main"), to=to, **more)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_requests_are_split_by_the_weights_of_the_targets(tmp_path: Path, stack: ExitStack) -> None:
    listings = [
        listing("orders", "stable", stack.enter_context(echo_service("stable")), metadata={"version": "1"}),
        listing("orders", "canary", stack.enter_context(echo_service("canary")), metadata={"version": "2"}),
        listing("never", "never", stack.enter_context(echo_service("never"))),
    ]
    to = (
        Target(Selector("orders", metadata={"version": "1"}), 80),
        Target(Selector("orders", metadata={"version": "2"}), 20),
        Target(Selector("never"), 0),
    )
    with running_gateway(tmp_path, listings, route(*to)) as gateway:
        ids = gateway.ids("/main", 1_000)
    # A fifth of a thousand, plus or minus six standard deviations (12.6 each): once in 10⁹ runs it is outside.
    assert 124 <= ids["canary"] <= 276
    assert ids["never"] == 0


def test_an_empty_target_has_no_share(tmp_path: Path, stack: ExitStack) -> None:
    listings = [
        listing("orders", "stable", stack.enter_context(echo_service("stable"))),
        listing("orders", "canary", free_port(), tags=("canary",), status=Status.DRAINING),
        listing("sick", "sick", stack.enter_context(echo_service("sick")), status=Status.CRITICAL),
    ]
    to = (
        Target(Selector("orders", without_tags=("canary",)), 10),
        Target(Selector("orders", ("canary",)), 50),
        Target(Selector("ordrs"), 20),
        Target(Selector("sick"), 20),
    )
    with running_gateway(tmp_path, listings, route(*to)) as gateway:
        assert gateway.ids("/main", 200) == {"stable": 200}


def test_a_mirror_gets_whole_copies_and_its_answers_are_ignored(tmp_path: Path, stack: ExitStack) -> None:
    received: ReceivedRequests = SimpleQueue()
    listings = [
        listing("orders", "o1", stack.enter_context(echo_service("o1"))),
        listing("next", "n1", stack.enter_context(echo_service("n1", status=500, received=received))),
    ]
    mirrored = route(Target(Selector("orders")), mirror=Mirror(Selector("next")))
    with running_gateway(tmp_path, listings, mirrored) as gateway:
        for n in range(20):
            answer = gateway.get(f"/main/{n}?q=1", x_number=str(n))
            assert (answer.status, answer.id) == (200, "o1")
        copies = [received.get(timeout=ENVOY_TIMEOUT) for _ in range(20)]
    assert sorted(copy["path"] for copy in copies) == sorted(f"/main/{n}?q=1" for n in range(20))
    for copy in copies:
        assert copy["path"] == f"/main/{copy['headers']['x-number']}?q=1"
    assert received.empty()


def test_a_mirror_gets_its_share_and_may_be_down(tmp_path: Path, stack: ExitStack) -> None:
    received: ReceivedRequests = SimpleQueue()
    listings = [
        listing("orders", "o1", stack.enter_context(echo_service("o1"))),
        listing("next", "n1", stack.enter_context(echo_service("n1", received=received))),
        listing("down", "d1", free_port()),
    ]
    half = route(Target(Selector("orders")), mirror=Mirror(Selector("next"), 0.5))
    down = Route("down", path=PathMatch(MatchKind.PREFIX, "/down-too"), to=half.to, mirror=Mirror(Selector("down")))
    with running_gateway(tmp_path, listings, half, down) as gateway:
        assert {gateway.get("/down-too").status for _ in range(10)} == {200}
        for _ in range(400):
            assert gateway.get("/main").id == "o1"
        last = gateway.get("/next/last")  # Copies that were sent before it arrive soon.
        assert last.id == "n1"
        deadline = time.monotonic() + ENVOY_TIMEOUT
        while received.qsize() < 140:  # 200 copies, plus or minus six standard deviations (10 each).
            assert time.monotonic() < deadline, received.qsize()
            time.sleep(0.02)
        assert received.qsize() <= 260 + 1


@pytest.mark.parametrize("policy", [RING, MAGLEV], ids=HASHING)
def test_a_key_stays_at_its_instance_and_few_keys_move_when_another_instance_leaves(
    tmp_path: Path, stack: ExitStack, policy: LbPolicy
) -> None:
    ports = {f"o{n}": stack.enter_context(echo_service(f"o{n}")) for n in range(8)}
    # The same instances in two services: one service has all of them, and one instance has left the other service.
    listings = [listing("before", id, port) for id, port in ports.items()]
    listings += [listing("after", id, port) for id, port in ports.items() if id != "o3"]
    routes = [
        Route(
            service,
            path=PathMatch(MatchKind.PREFIX, f"/to-{service}"),
            to=(Target(Selector(service)),),
            hash=HashPolicy(header="x-user"),
        )
        for service in ("before", "after")
    ]
    with running_gateway(tmp_path, listings, *routes, *(Upstream(route.name, policy) for route in routes)) as gateway:
        before, after, again = (
            {key: gateway.get(f"/to-{service}", x_user=key).id for key in KEYS}
            for service in ("before", "after", "before")
        )
    assert again == before, "the same key leads to the same instance"
    assert set(before.values()) == set(ports)
    stayed = [key for key in KEYS if before[key] != "o3"]
    moved = [key for key in stayed if after[key] != before[key]]
    # Without a consistent hash, six of seven keys would move.
    assert len(moved) < len(stayed) / 3


def _wait_until(condition: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + ENVOY_TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {description}"


def test_an_instance_that_fails_five_times_in_a_row_is_ejected_and_returns(tmp_path: Path, stack: ExitStack) -> None:
    received: ReceivedRequests = SimpleQueue()
    listings = [
        listing("orders", "good", stack.enter_context(echo_service("good"))),
        listing("orders", "bad", stack.enter_context(echo_service("bad", status=503, received=received))),
    ]
    without_retries = route(Target(Selector("orders")), retries=Retries(0))
    upstream = Upstream("orders", LbPolicy.ROUND_ROBIN, outliers=OutlierSettings(consecutive=5, interval=0.1, base=2.0))
    with running_gateway(tmp_path, listings, without_retries, upstream) as gateway:
        _wait_until(lambda: gateway.ids("/main", 20) == {"good": 20}, "the failing instance is ejected")
        failed = received.qsize()
        assert failed >= 5
        _wait_until(lambda: gateway.get("/main").status == 503, "the instance is called again")


def test_at_most_half_of_the_failing_instances_are_ejected(tmp_path: Path, stack: ExitStack) -> None:
    queues: list[ReceivedRequests] = [SimpleQueue() for _ in range(4)]
    listings = [
        listing("orders", f"bad-{n}", stack.enter_context(echo_service(f"bad-{n}", status=503, received=received)))
        for n, received in enumerate(queues)
    ]
    without_retries = route(Target(Selector("orders")), retries=Retries(0))
    upstream = Upstream(
        "orders", LbPolicy.ROUND_ROBIN, outliers=OutlierSettings(consecutive=3, interval=0.1, base=3_600.0)
    )
    with running_gateway(tmp_path, listings, without_retries, upstream) as gateway:
        _wait_until(lambda: len(gateway.ids("/main", 20)) == 2, "half of the instances are ejected")
        assert len(gateway.ids("/main", 60)) == 2


def test_a_500_ejects_no_instance(tmp_path: Path, stack: ExitStack) -> None:
    listings = [
        listing("orders", "good", stack.enter_context(echo_service("good"))),
        listing("orders", "buggy", stack.enter_context(echo_service("buggy", status=500))),
    ]
    upstream = Upstream(
        "orders", LbPolicy.ROUND_ROBIN, outliers=OutlierSettings(consecutive=1, interval=0.1, base=3_600.0)
    )
    with running_gateway(tmp_path, listings, upstream) as gateway:
        assert gateway.ids("/orders/", 40) == {"good": 20, "buggy": 20}


def test_unusable_instances_are_called_only_below_a_panic_threshold(tmp_path: Path, stack: ExitStack) -> None:
    received: ReceivedRequests = SimpleQueue()
    healthy = stack.enter_context(echo_service("healthy"))
    ill = [stack.enter_context(echo_service(f"ill-{n}", received=received)) for n in range(9)]
    statuses = [Status.CRITICAL, Status.DRAINING, Status.STARTING] * 3

    def unusable(service: str) -> list[Listing]:
        return [
            listing(service, f"ill-{n}", port, status=status)
            for n, (port, status) in enumerate(zip(ill, statuses, strict=True))
        ]

    listings = [
        *unusable("gone"),
        *unusable("few"),
        listing("few", "healthy", healthy),
        *unusable("panic"),
        listing("panic", "healthy", healthy),
    ]
    with running_gateway(tmp_path, listings, Upstream("panic", panic_threshold=0.5)) as gateway:
        answer = gateway.get("/gone/")
        assert (answer.status, answer.content["service"], answer.headers["retry-after"]) == (503, "gone", "1")
        assert gateway.ids("/few/", 50) == {"healthy": 50}
        assert received.empty()
        assert len(gateway.ids("/panic/", 50)) > 1
