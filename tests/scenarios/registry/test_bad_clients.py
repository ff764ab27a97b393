"""Many kinds of misbehaving clients at one node: none of them disturbs a good client."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from random import Random

import pytest

from adsum.client.client import Client
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import (
    ADSUM_COMMAND,
    SCENARIO_TIMEOUT,
    JsonApi,
    ScenarioRegistry,
    ScenarioSandbox,
    wait_until,
)
from tests.scenarios.service_caller import load

IDLE = 10_000
"""Connections without any request; fewer if the system allows no more."""
GROWTH = 200 * 1024 * 1024
"""Bytes by which the memory of the node may grow: generous, but far below the size of a leak."""
WATCHERS, UNREAD = 200, 50
"""Watchers that come and go, and watchers that never read."""
JSON = b"host: localhost\r\ncontent-type: application/json\r\n"
PUT = b"PUT /api/v1/services/bad/instances/b HTTP/1.1\r\n" + JSON
Misbehaviour = Callable[[int], Coroutine[None, None, None]]


@asynccontextmanager
async def good_client(sandbox: ScenarioSandbox, node: ScenarioRegistry) -> AsyncIterator[None]:
    """Runs a client that registers, renews, calls and checks the node's health, and fails if it is disturbed."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        provider = await stack.enter_async_context(Client(sandbox.url, cache=False))
        consumer = await stack.enter_async_context(Client(sandbox.url, cache=False))
        serving = await stack.enter_async_context(running_instance("good"))
        await provider.register("good", serving.port, id="good", ttl=20.0).start(30.0)
        channel = consumer.channel("good")
        await channel.ready(30.0)
        memory = node.memory_bytes
        healthy = asyncio.create_task(_check_health(sandbox, api))
        caller = await stack.enter_async_context(load(channel, workers=1))
        yield
        healthy.cancel()
        with suppress(asyncio.CancelledError):
            await healthy
        assert (await api.put("/services/good/instances/after", port=8000))["revision"]
        await wait_until(lambda: channel.usable_count == 2)
        assert caller.failures == []
        history = await api.get("/changes", service="good")
        assert [change["cause"] for change in history["changes"]] == ["registered"] * 2, (
            "the instance always had the same status"
        )
        assert node.memory_bytes - memory < GROWTH, f"it grew by {(node.memory_bytes - memory) >> 20} MiB"
        assert node.process.poll() is None
        assert "Traceback" not in node.stderr, node.stderr[-4000:]


async def _check_health(sandbox: ScenarioSandbox, api: JsonApi) -> None:
    while True:
        assert (await api.http.get(f"{sandbox.url}/healthz")).status_code == 200
        await asyncio.sleep(0.1)


async def _exchange(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Sends the parts and returns the whole answer; b"" if the node closed the connection without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(SCENARIO_TIMEOUT):
                return await reader.read(100_000)
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _vanish(connection: socket.socket) -> None:
    """Resets the connection, as seen from behind a firewall when a machine loses its power."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def _metric(sandbox: ScenarioSandbox, name: str, expected: Callable[[float], bool]) -> None:
    """Returns once a metric of the node is as expected."""
    async with JsonApi(sandbox.url) as api, asyncio.timeout(SCENARIO_TIMEOUT):
        while True:
            text = (await api.http.get(f"{sandbox.url}/metrics")).text
            if expected(float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))):
                return
            await asyncio.sleep(0.1)


async def test_ten_thousand_idle_connections_disturb_no_client(sandbox: ScenarioSandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(IDLE, hard - 1_000) if hard != resource.RLIM_INFINITY else IDLE
    node = await sandbox.start_registry()
    idle: list[socket.socket] = []
    try:
        async with good_client(sandbox, node):
            for n in range(count):
                connection = socket.create_connection(("127.0.0.1", sandbox.node_port), timeout=SCENARIO_TIMEOUT)
                idle.append(connection)
                if n % 100 == 0:
                    await asyncio.sleep(0)
            await _metric(sandbox, "adsum_connections", lambda found: found >= count)
            with closing(socket.create_connection(("127.0.0.1", sandbox.node_port))) as one_more:
                one_more.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                one_more.settimeout(SCENARIO_TIMEOUT)
                assert (await asyncio.to_thread(one_more.recv, 100)).startswith(b"HTTP/1.1 200")
            for connection in idle:
                connection.close()
            await _metric(sandbox, "adsum_connections", lambda count: count < 20)
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_malformed_requests_are_refused_or_closed_and_disturb_no_client(sandbox: ScenarioSandbox) -> None:
    node, rng = await sandbox.start_registry(), Random(7)
    port = sandbox.node_port

    async def garbage(n: int) -> None:
        answer = await _exchange(port, rng.randbytes(rng.randrange(1, 5_000)) + b"\r\n\r\n")
        assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431"), answer[:200]

    async def tls(n: int) -> None:
        answer = await _exchange(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500))
        assert answer[:12] in (b"", b"HTTP/1.1 400"), answer[:200]

    async def huge_body(n: int) -> None:
        answer = await _exchange(port, PUT, b"content-length: 1000000000\r\n\r\n", *[b"x" * 65_536] * 64)
        assert answer[:12] in (b"", b"HTTP/1.1 413"), answer[:200]

    async def endless_body(n: int) -> None:
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        answer = await _exchange(port, PUT, b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 200)
        assert answer[:12] in (b"", b"HTTP/1.1 413"), answer[:200]

    async def huge_head(n: int) -> None:
        answer = await _exchange(port, b"GET / HTTP/1.1\r\n", *[b"x-y: " + b"z" * 10_000 + b"\r\n"] * 50)
        assert answer[:12] in (b"", b"HTTP/1.1 431"), answer[:200]

    async def slow_head(n: int) -> None:
        for byte in PUT[: rng.randrange(20, 40)]:
            await _byte(slow[n], byte)

    async def half_a_body(n: int) -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(PUT + b'content-length: 100\r\n\r\n{"port": 80')
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        _vanish(connection)

    async def bad_json(n: int) -> None:
        body = b"[" * rng.randrange(1, 100_000)
        answer = await _exchange(port, PUT, b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body), body)
        assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413"), answer[:200]

    misbehaviours: list[Misbehaviour] = [
        garbage, tls, huge_body, endless_body, huge_head, slow_head, half_a_body, bad_json
    ]  # fmt: skip
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        async with good_client(sandbox, node):
            async with asyncio.TaskGroup() as group:
                for misbehaviour in misbehaviours:
                    for n in range(20):
                        group.create_task(misbehaviour(n))
            async with JsonApi(sandbox.url) as api:
                assert await api.statuses("bad") == {}, "no malformed request registered an instance"
    finally:
        for connection in slow:
            connection.close()


async def _byte(connection: socket.socket, byte: int) -> None:
    with suppress(ConnectionError):
        connection.sendall(bytes([byte]))
    await asyncio.sleep(0.05)


@pytest.mark.long
async def test_watchers_that_vanish_or_never_read_disturb_no_client(sandbox: ScenarioSandbox) -> None:
    node, rng = await sandbox.start_registry(), Random(17)
    request = b"GET /api/v1/watch HTTP/1.1\r\nhost: localhost\r\n\r\n"

    async def comes_and_goes() -> None:
        for _ in range(2):
            with closing(await _open_unread(sandbox, request[: rng.choice((10, len(request)))])) as connection:
                await asyncio.sleep(rng.uniform(0.0, 0.5))
                if rng.random() < 0.5:
                    _vanish(connection)

    async with good_client(sandbox, node), JsonApi(sandbox.url) as api, AsyncExitStack() as stack:
        metadata = {f"much-{n}": "x" * 1_000 for n in range(4)}
        unread = [stack.enter_context(closing(await _open_unread(sandbox, request))) for _ in range(UNREAD)]
        async with asyncio.TaskGroup() as group:
            for _ in range(WATCHERS):
                group.create_task(comes_and_goes())
            for turn in range(5):
                for n in range(100):
                    path = f"/services/much-{n % 5}/instances/m{n}"
                    await api.put(path, port=8000 + turn, metadata=metadata)
        # Watchers that read late miss the changes between, and receive the latest state.
        text = await asyncio.to_thread(_read_group, unread[0])
        assert b"event: synced" in text
        for connection in unread:
            connection.close()
        await _metric(sandbox, "adsum_watches", lambda count: count == 1)


async def _open_unread(sandbox: ScenarioSandbox, request: bytes) -> socket.socket:
    """Opens a connection that sends the request and then reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", sandbox.node_port))
    connection.sendall(request)
    return connection


def _read_group(connection: socket.socket) -> bytes:
    """Returns everything up to the end of a group of events."""
    connection.settimeout(SCENARIO_TIMEOUT)
    text = b""
    while b"event: synced" not in text:
        part = connection.recv(1 << 20)
        assert part
        text += part
    return text


async def test_connections_past_the_limit_of_descriptors_are_answered_with_503(sandbox: ScenarioSandbox) -> None:
    """Open connections continue, and new ones are accepted once others have closed."""
    limit, many = 160, 400
    xds = sandbox.port()
    serve = [
        "serve",
        "--listen",
        f"127.0.0.1:{sandbox.node_port}",
        "--xds",
        f"127.0.0.1:{xds}",
        "--store",
        sandbox.sqlite_url,
    ]
    limited = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(limit)]
    node = sandbox.program("limited", *limited, *ADSUM_COMMAND, *serve)
    await node.wait_for_output("the dialect xds listens on")
    await node.wait_for_output(
        f"the limit of open files is {limit}, which allows 43 connections at a time instead of 20000"
    )
    watch = b"GET /api/v1/watch?service=orders HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        await api.put("/services/orders/instances/o1", port=8000, ttl=None)
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", sandbox.node_port) for _ in range(many)))
        for _, writer in opened:
            stack.callback(writer.close)
            writer.write(watch)
        answers = await asyncio.gather(*(_head(reader) for reader, _ in opened))
        assert {b"200", b"503"} == {answer[9:12] for answer in answers}, "every connection gets an answer"
        assert 30 <= sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) < 43
        assert _descriptors(node.pid) < limit
        metrics = (await api.http.get(f"{sandbox.url}/metrics")).text
        assert (
            f'adsum_connections_shed_total{{status="503"}} {many - sum(b" 200 " in answer for answer in answers)}.0'
            in metrics
        )
        assert "adsum_connections_max 43.0" in metrics
    async with JsonApi(sandbox.url) as later:
        await wait_until(lambda: "Traceback" not in node.stderr)
        assert await later.statuses("orders") == {"o1": "passing"}


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Returns the first line of an answer; b"" if the connection ended without one."""
    with suppress(ConnectionError):
        async with asyncio.timeout(SCENARIO_TIMEOUT):
            return await reader.readline()
    return b""
