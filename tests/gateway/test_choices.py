"""Whom a gateway's requests go to, on a real Envoy: shares, copies, keys, who is left out, and how many at a time."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest

from adsum.core import catalog
from adsum.core.changes import Whole
from adsum.core.model import Listing, Status
from adsum.gateway.actions import HashOn, Mirror, Retries, Target
from adsum.gateway.compiled import NOTHING
from adsum.gateway.intent import Intent
from adsum.gateway.matches import MatchKind
from adsum.gateway.matches import Path as Where
from adsum.gateway.routes import Route
from adsum.gateway.selectors import Selector
from adsum.gateway.shape import Shape
from adsum.gateway.upstreams import Limits, Outliers, Policy, Upstream
from tests.gateway.envoys import PATIENCE, free_port, needs_envoy, running
from tests.gateway.providers import Heard, listing, serving

pytestmark = needs_envoy

KEYS = [f"user-{n}" for n in range(200)]
RING, MAGLEV = Policy.RING_HASH, Policy.MAGLEV
HASHING = ("ring_hash", "maglev")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    said: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.said["id"])


class Gateway:
    """An Envoy that serves those instances; requests to it, all on one connection."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._kept = http.client.HTTPConnection(address, timeout=PATIENCE)

    def get(self, path: str, **headers: str) -> Answer:
        return self._get(self._kept, path, headers)

    def apart(self, path: str) -> Answer:
        """On a connection of its own."""
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            return self._get(connection, path, {})
        finally:
            connection.close()

    def ids(self, path: str, count: int) -> Counter[str]:
        """Who answered so many requests."""
        return Counter(self.get(path).id for _ in range(count))

    @staticmethod
    def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> Answer:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        said = json.loads(response.read())
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, said)

    def close(self) -> None:
        self._kept.close()


@contextmanager
def gateway(folder: Path, listings: Sequence[Listing], *intent: Route | Upstream) -> Iterator[Gateway]:
    routes = tuple(each for each in intent if isinstance(each, Route))
    upstreams = {each.service: each for each in intent if isinstance(each, Upstream)}
    snapshot = catalog.load(Whole("e", 1, [(1, each) for each in listings]))
    shape = Shape((f"127.0.0.1:{free_port()}",), access_log="off")
    with running(NOTHING.follow(snapshot, Intent(routes, upstreams), {}), shape, folder):
        found = Gateway(shape.listen[0])
        yield found
        found.close()


def route(*to: Target, **more: Any) -> Route:
    return Route("main", path=Where(MatchKind.PREFIX, "/main"), to=to, **more)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_requests_are_split_by_the_weights_of_the_targets(tmp_path: Path, stack: ExitStack) -> None:
    listings = [
        listing("orders", "stable", stack.enter_context(serving("stable")), metadata={"version": "1"}),
        listing("orders", "canary", stack.enter_context(serving("canary")), metadata={"version": "2"}),
        listing("never", "never", stack.enter_context(serving("never"))),
    ]
    to = (
        Target(Selector("orders", metadata={"version": "1"}), 80),
        Target(Selector("orders", metadata={"version": "2"}), 20),
        Target(Selector("never"), 0),
    )
    with gateway(tmp_path, listings, route(*to)) as calling:
        answered = calling.ids("/main", 1_000)
    # A fifth of a thousand, give or take six standard deviations (12.6 each): once in 10⁹ runs it is none of these.
    assert 124 <= answered["canary"] <= 276
    assert answered["never"] == 0


def test_a_copy_is_sent_whole_to_the_mirror_and_its_answer_is_nobodys(tmp_path: Path, stack: ExitStack) -> None:
    heard: Heard = SimpleQueue()
    listings = [
        listing("orders", "o1", stack.enter_context(serving("o1"))),
        listing("next", "n1", stack.enter_context(serving("n1", status=500, heard=heard))),
    ]
    mirrored = route(Target(Selector("orders")), mirror=Mirror(Selector("next")))
    with gateway(tmp_path, listings, mirrored) as calling:
        for n in range(20):
            answer = calling.get(f"/main/{n}?q=1", x_number=str(n))
            assert (answer.status, answer.id) == (200, "o1")
        copies = [heard.get(timeout=PATIENCE) for _ in range(20)]
    assert sorted(copy["path"] for copy in copies) == sorted(f"/main/{n}?q=1" for n in range(20))
    for copy in copies:
        assert copy["path"] == f"/main/{copy['headers']['x-number']}?q=1"
    assert heard.empty()


def test_a_mirror_gets_its_share_and_may_be_down(tmp_path: Path, stack: ExitStack) -> None:
    heard: Heard = SimpleQueue()
    listings = [
        listing("orders", "o1", stack.enter_context(serving("o1"))),
        listing("next", "n1", stack.enter_context(serving("n1", heard=heard))),
        listing("down", "d1", free_port()),
    ]
    half = route(Target(Selector("orders")), mirror=Mirror(Selector("next"), 0.5))
    down = Route("down", path=Where(MatchKind.PREFIX, "/down-too"), to=half.to, mirror=Mirror(Selector("down")))
    with gateway(tmp_path, listings, half, down) as calling:
        assert {calling.get("/down-too").status for _ in range(10)} == {200}
        for _ in range(400):
            assert calling.get("/main").id == "o1"
        last = calling.get("/next/last")  # Copies that were sent before it are there before long.
        assert last.id == "n1"
        deadline = time.monotonic() + PATIENCE
        while heard.qsize() < 140:  # 200 copies, give or take six standard deviations (10 each).
            assert time.monotonic() < deadline, heard.qsize()
            time.sleep(0.02)
        assert heard.qsize() <= 260 + 1


@pytest.mark.parametrize("policy", [RING, MAGLEV], ids=HASHING)
def test_a_key_stays_with_its_instance_and_few_move_when_another_leaves(
    tmp_path: Path, stack: ExitStack, policy: Policy
) -> None:
    ports = {f"o{n}": stack.enter_context(serving(f"o{n}")) for n in range(8)}
    # The same instances under two names: one that has all of them, and one that a single one has left.
    listings = [listing("before", id, port) for id, port in ports.items()]
    listings += [listing("after", id, port) for id, port in ports.items() if id != "o3"]
    routes = [
        Route(
            service,
            path=Where(MatchKind.PREFIX, f"/to-{service}"),
            to=(Target(Selector(service)),),
            hash=HashOn(header="x-user"),
        )
        for service in ("before", "after")
    ]
    with gateway(tmp_path, listings, *routes, *(Upstream(each.name, policy) for each in routes)) as calling:
        before, after, again = (
            {key: calling.get(f"/to-{service}", x_user=key).id for key in KEYS}
            for service in ("before", "after", "before")
        )
    assert again == before, "the same key leads to the same instance"
    assert set(before.values()) == set(ports)
    stayed = [key for key in KEYS if before[key] != "o3"]
    moved = [key for key in stayed if after[key] != before[key]]
    # Without a consistent hash six of seven would move.
    assert len(moved) < len(stayed) / 3


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"not in time: {what}"


def test_who_fails_five_times_in_a_row_is_left_out_and_comes_back(tmp_path: Path, stack: ExitStack) -> None:
    heard: Heard = SimpleQueue()
    listings = [
        listing("orders", "good", stack.enter_context(serving("good"))),
        listing("orders", "bad", stack.enter_context(serving("bad", status=503, heard=heard))),
    ]
    once = route(Target(Selector("orders")), retries=Retries(0))
    out = Upstream("orders", Policy.ROUND_ROBIN, outliers=Outliers(consecutive=5, interval=0.1, base=2.0))
    with gateway(tmp_path, listings, once, out) as calling:
        _until(lambda: calling.ids("/main", 20) == {"good": 20}, "it is left out")
        failed = heard.qsize()
        assert failed >= 5
        _until(lambda: calling.get("/main").status == 503, "it is called again")


def test_of_all_that_fail_no_more_than_half_are_left_out(tmp_path: Path, stack: ExitStack) -> None:
    queues: list[Heard] = [SimpleQueue() for _ in range(4)]
    listings = [
        listing("orders", f"bad-{n}", stack.enter_context(serving(f"bad-{n}", status=503, heard=heard)))
        for n, heard in enumerate(queues)
    ]
    once = route(Target(Selector("orders")), retries=Retries(0))
    out = Upstream("orders", Policy.ROUND_ROBIN, outliers=Outliers(consecutive=3, interval=0.1, base=3_600.0))
    with gateway(tmp_path, listings, once, out) as calling:
        _until(lambda: len(calling.ids("/main", 20)) == 2, "half of them are left out")
        assert len(calling.ids("/main", 60)) == 2


def test_an_answer_of_500_leaves_nobody_out(tmp_path: Path, stack: ExitStack) -> None:
    listings = [
        listing("orders", "good", stack.enter_context(serving("good"))),
        listing("orders", "buggy", stack.enter_context(serving("buggy", status=500))),
    ]
    out = Upstream("orders", Policy.ROUND_ROBIN, outliers=Outliers(consecutive=1, interval=0.1, base=3_600.0))
    with gateway(tmp_path, listings, out) as calling:
        assert calling.ids("/orders/", 40) == {"good": 20, "buggy": 20}


def test_nobody_who_is_sick_or_leaves_is_called_unless_a_panic_threshold_says_so(
    tmp_path: Path, stack: ExitStack
) -> None:
    heard: Heard = SimpleQueue()
    well = stack.enter_context(serving("well"))
    ill = [stack.enter_context(serving(f"ill-{n}", heard=heard)) for n in range(9)]
    statuses = [Status.CRITICAL, Status.DRAINING, Status.STARTING] * 3

    def of(service: str) -> list[Listing]:
        return [
            listing(service, f"ill-{n}", port, status=status)
            for n, (port, status) in enumerate(zip(ill, statuses, strict=True))
        ]

    listings = [*of("gone"), *of("few"), listing("few", "well", well), *of("panic"), listing("panic", "well", well)]
    with gateway(tmp_path, listings, Upstream("panic", panic_threshold=0.5)) as calling:
        answer = calling.get("/gone/")
        assert (answer.status, answer.said["service"], answer.headers["retry-after"]) == (503, "gone", "1")
        assert calling.ids("/few/", 50) == {"well": 50}
        assert heard.empty()
        assert len(calling.ids("/panic/", 50)) > 1


class _Slow(ThreadingHTTPServer):
    """An instance that answers nothing before it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self.go = threading.Event()
        outer = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.came.release()
                outer.go.wait(PATIENCE)
                body = b'{"id": "slow"}'
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Answer)


@contextmanager
def slow() -> Iterator[_Slow]:
    with _Slow() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("limits", "held"),
    [(Limits(connections=1, pending=1), 2), (Limits(connections=1, pending=3), 4), (Limits(requests=1), 1)],
    ids=["one-connection-one-waits", "one-connection-three-wait", "one-request"],
)
def test_what_goes_past_a_limit_is_refused_at_once_and_what_is_held_is_answered(
    tmp_path: Path, limits: Limits, held: int
) -> None:
    with (
        slow() as server,
        gateway(
            tmp_path, [listing("orders", "slow", server.server_address[1])], Upstream("orders", limits=limits)
        ) as calling,
        ThreadPoolExecutor(12) as threads,
    ):
        asked: list[Future[Answer]] = [threads.submit(calling.apart, "/orders/")]
        assert server.came.acquire(timeout=PATIENCE)
        asked += [threads.submit(calling.apart, "/orders/") for _ in range(9)]
        refused = [each.result() for each in islice(as_completed(asked, PATIENCE), 10 - held)]
        server.go.set()
        answers = [each.result(PATIENCE) for each in asked]
    for answer in refused:
        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
        assert (answer.said["title"], answer.said["service"]) == ("Too many requests", "orders")
        assert "overflow" in answer.said["reason"]
        assert answer.headers["retry-after"] == "1"
    assert Counter(answer.status for answer in answers) == {503: 10 - held, 200: held}
