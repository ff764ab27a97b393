"""The limits of upstreams at a real Envoy: requests past a limit are refused at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest

from adsum.gateway.intent.upstreams import Upstream, UpstreamLimits
from tests.gateway.echo_services import listing, serving
from tests.gateway.envoy_gateway import GatewayAnswer, running_gateway
from tests.gateway.real_envoy import ENVOY_TIMEOUT, needs_envoy

pytestmark = needs_envoy


class _Slow(ThreadingHTTPServer):
    """An instance that answers no request before the test sets `release`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.release = threading.Event()
        outer = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.arrived.release()
                outer.release.wait(ENVOY_TIMEOUT)
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
    with _Slow() as server, serving(server):
        try:
            yield server
        finally:
            server.release.set()


@pytest.mark.parametrize(
    ("limits", "held"),
    [
        (UpstreamLimits(connections=1, pending=1), 2),
        (UpstreamLimits(connections=1, pending=3), 4),
        (UpstreamLimits(requests=1), 1),
    ],
    ids=["one-connection-one-waits", "one-connection-three-wait", "one-request"],
)
def test_requests_past_a_limit_are_refused_at_once_and_other_requests_are_answered(
    tmp_path: Path, limits: UpstreamLimits, held: int
) -> None:
    with (
        slow() as server,
        running_gateway(
            tmp_path, [listing("orders", "slow", server.server_address[1])], Upstream("orders", limits=limits)
        ) as gateway,
        ThreadPoolExecutor(12) as threads,
    ):
        pending: list[Future[GatewayAnswer]] = [threads.submit(gateway.get_on_new_connection, "/orders/")]
        assert server.arrived.acquire(timeout=ENVOY_TIMEOUT)
        pending += [threads.submit(gateway.get_on_new_connection, "/orders/") for _ in range(9)]
        refused = [future.result() for future in islice(as_completed(pending, ENVOY_TIMEOUT), 10 - held)]
        server.release.set()
        answers = [future.result(ENVOY_TIMEOUT) for future in pending]
    for answer in refused:
        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
        assert (answer.content["title"], answer.content["service"]) == ("Too many requests", "orders")
        assert "overflow" in answer.content["reason"]
        limits_text = (
            f"{limits.connections} connections, {limits.pending} waiting and {limits.requests} running requests"
        )
        assert limits_text in answer.content["detail"]
        assert answer.headers["retry-after"] == "1"
    assert Counter(answer.status for answer in answers) == {503: 10 - held, 200: held}
