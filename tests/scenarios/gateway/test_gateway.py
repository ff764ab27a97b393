"""The gateway under load, with real processes: no request fails while programs behind it start, stop or crash."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.scenarios.gateway_load import GatewayLoad, child_pid, register, start_wrapped_instance
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, wait_until
from tests.support.certificates import certificate


async def test_a_rolling_restart_and_a_kill_9_of_wrapped_programs_fail_no_request(gateway_load: GatewayLoad) -> None:
    await gateway_load.start_registry()
    ids = ["o0", "o1", "o2"]
    running = {id: start_wrapped_instance(gateway_load.sandbox, id, "--ttl", "2s", "--grace", "1s") for id in ids}
    async with JsonApi(gateway_load.sandbox.url) as api:
        await api.wait_for_statuses("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))
        await gateway_load.start_gateway()
        await gateway_load.wait_for_answer()
        async with gateway_load.load():
            for n, old in enumerate(ids[:2]):
                ids[n] = new = f"{old}-again"
                running[new] = start_wrapped_instance(gateway_load.sandbox, new)
                await api.wait_for_statuses("orders", lambda statuses, new=new: statuses.get(new) == "passing")  # type: ignore[misc]
                assert await running[old].stop() == 0, running[old].stderr
            await wait_until(lambda: {"o0-again", "o1-again", "o2"} <= gateway_load.answered.keys())
            for pid in (child_pid(running["o2"]), running["o2"].pid):
                os.kill(pid, signal.SIGKILL)
            await api.wait_for_statuses("orders", lambda statuses: "o2" not in statuses)
        assert gateway_load.failures == []


@pytest.mark.parametrize("store", ["", "memory:"], ids=["kept", "empty"])
async def test_the_gateway_serves_while_the_registry_restarts_even_empty(gateway_load: GatewayLoad, store: str) -> None:
    node = await gateway_load.start_registry(store)
    ids = ["o0", "o1"]
    for id in ids:
        start_wrapped_instance(gateway_load.sandbox, id, "--ttl", "2s")
    async with JsonApi(gateway_load.sandbox.url) as api:
        await api.wait_for_statuses("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))
        await gateway_load.start_gateway()
        await gateway_load.wait_for_answer()
        async with gateway_load.load():
            await node.stop(signal.SIGKILL)
            seen = gateway_load.answered.total()
            await wait_until(lambda: gateway_load.answered.total() > seen + 50)
            await gateway_load.start_registry(store)
            await api.wait_for_statuses("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))
            # The gateway follows the new registry: a new instance is called.
            start_wrapped_instance(gateway_load.sandbox, "o2")
            await wait_until(lambda: "o2" in gateway_load.answered)
        assert gateway_load.failures == []


async def test_a_service_without_instances_answers_503_and_no_other_route_takes_its_requests(
    gateway_load: GatewayLoad,
) -> None:
    await gateway_load.start_registry()
    async with (
        JsonApi(gateway_load.sandbox.url) as api,
        running_instance("o1") as orders,
        running_instance("any") as other,
    ):
        await register(api, "orders", orders)
        await register(api, "any", other)
        await api.put("/routes/shop", path={"prefix": "/shop"}, to=[{"service": "orders"}])
        await gateway_load.start_gateway()
        by_host = {"host": "orders.localhost"}
        await gateway_load.wait_for_answer("/shop/", "o1")
        await gateway_load.wait_for_answer("/any/", "any")
        assert (await gateway_load.http.get("/any/", headers=by_host)).text == "o1"
        caught = len(other.calls)
        await api.delete("/services/orders/instances/o1")
        while (gone := await gateway_load.http.get("/any/", headers=by_host)).status_code == 200:
            assert gone.text == "o1", "the default route of the other service took it"
            await asyncio.sleep(0.02)
        assert gone.status_code == 503
        assert gone.headers["content-type"] == "application/problem+json"
        assert int(gone.headers["retry-after"]) >= 1
        assert gone.json()["service"] == "orders"
        assert len(other.calls) == caught
        await api.put("/routes/catch-all", to=[{"service": "any"}])
        await gateway_load.wait_for_answer("/nobody-else-s/", "any")
        gone = await gateway_load.http.get("/shop/")
        assert (gone.status_code, gone.json()["service"]) == (503, "orders")
        await register(api, "orders", orders)
        await gateway_load.wait_for_answer("/shop/", "o1")


async def test_a_gateway_that_starts_without_a_registry_applies_rate_limits(gateway_load: GatewayLoad) -> None:
    node = await gateway_load.start_registry()
    async with JsonApi(gateway_load.sandbox.url) as api, running_instance("o1") as orders:
        await register(api, "orders", orders)
        limit = {"requests": 3, "per": "1h"}
        await api.put("/routes/few", path={"prefix": "/few"}, to=[{"service": "orders"}], rate_limit=limit)
        gateway = await gateway_load.start_gateway()
        await gateway_load.wait_for_answer("/few/")
        await wait_until(
            lambda: any("few" in file.read_text() for file in gateway_load.sandbox.folder.rglob("gateways/*.json"))
        )
        await gateway.stop()
        await node.stop()
        again = await gateway_load.start_gateway()
        await again.wait_for_output("serves the last good configuration")
        assert [(await gateway_load.http.get("/few/")).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert (await gateway_load.http.get("/orders/")).status_code == 200


async def test_route_changes_under_load_drop_no_request_and_wrong_ones_change_nothing(
    gateway_load: GatewayLoad,
) -> None:
    await gateway_load.start_registry()
    async with (
        JsonApi(gateway_load.sandbox.url) as api,
        running_instance("blue") as blue,
        running_instance("green") as green,
    ):
        await register(api, "blue", blue)
        await register(api, "green", green)
        await api.put("/routes/main", path={"prefix": "/shop"}, to=[{"service": "blue"}])
        await gateway_load.start_gateway()
        await gateway_load.wait_for_answer("/shop/")
        async with gateway_load.load("/shop/"):
            for to in ("green", "blue") * 10:
                before = gateway_load.answered[to]
                await api.put("/routes/main", path={"prefix": "/shop"}, to=[{"service": to}])
                await wait_until(lambda to=to, before=before: gateway_load.answered[to] > before)  # type: ignore[misc]
            wrong = await api.http.put("/routes/main", json={"path": {"prefix": "shop"}, "to": [{"service": "green"}]})
            assert (wrong.status_code, wrong.json()["field"]) == (422, "path.prefix")
            before = gateway_load.answered["blue"]
            await wait_until(lambda: gateway_load.answered["blue"] > before + 10)
        assert gateway_load.failures == []


async def test_every_change_takes_effect_and_the_time_is_recorded(
    gateway_load: GatewayLoad, record_property: Callable[[str, object], None]
) -> None:
    await gateway_load.start_registry("memory:")
    delays = []
    async with JsonApi(gateway_load.sandbox.url) as api, running_instance("a") as a, running_instance("b") as b:
        await register(api, "orders", a)
        await gateway_load.start_gateway()
        await gateway_load.wait_for_answer()
        for turn in range(40):
            old, new = (a, b) if turn % 2 == 0 else (b, a)
            await register(api, "orders", new)
            await api.delete(f"/services/orders/instances/{old.id}")
            began = time.monotonic()
            while (await gateway_load.http.get("/orders/")).text != new.id:
                assert time.monotonic() - began < 10.0
            delays.append(time.monotonic() - began)
            while {(await gateway_load.http.get("/orders/")).text for _ in range(4)} != {new.id}:
                assert time.monotonic() - began < 10.0, f"{old.id} is still called"
    assert len(delays) == 40
    record_property("median", statistics.median(delays))
    record_property("slowest", max(delays))


def _served_certificate(url: str) -> bytes:
    """Returns the certificate that the gateway presents."""
    host, _, port = url.removeprefix("http://").partition(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)), timeout=10.0))


def _rename(live: Path, file: str, content: bytes) -> None:
    """Replaces a file by renaming a new one."""
    (live / f"{file}.new").write_bytes(content)
    (live / f"{file}.new").rename(live / file)


def _overwrite(live: Path, file: str, content: bytes) -> None:
    """Replaces the content of a file."""
    (live / file).write_bytes(content)


def _relink(live: Path, file: str, content: bytes) -> None:
    """Replaces a file as certbot does."""
    archived = live.parent / f"{file}.2"
    archived.write_bytes(content)
    (live / file).unlink()
    (live / file).symlink_to(archived)


def _swap_folders(live: Path, file: str, content: bytes) -> None:
    """Replaces a file as the kubelet does, with a folder for each file."""
    for turn in ("1", "2"):
        version = live.parent / f"{file}-{turn}"
        version.mkdir()
        (version / file).write_bytes((live / file).read_bytes() if turn == "1" else content)
        (live.parent / f"{file}-next").symlink_to(version)
        (live.parent / f"{file}-next").rename(live.parent / f"{file}-data")
        if turn == "1":
            (live / file).unlink()
            (live / file).symlink_to(live.parent / f"{file}-data" / file)


@pytest.mark.parametrize("replace", [_rename, _overwrite, _relink, _swap_folders])
async def test_a_replaced_certificate_is_used_without_a_restart(
    gateway_load: GatewayLoad, tmp_path: Path, replace: Callable[[Path, str, bytes], None]
) -> None:
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    live, keys = tmp_path / "live", tmp_path / "keys"
    for folder, file, name in ((live, first[0], "chain.pem"), (keys, first[1], "key.pem")):
        folder.mkdir()
        (folder / name).write_bytes(file.read_bytes())
    await gateway_load.start_registry()
    gateway = await gateway_load.start_gateway(
        "--tls-cert", str(live / "chain.pem"), "--tls-key", str(keys / "key.pem")
    )
    secure = gateway_load.url.replace("http:", "https:")
    async with (
        running_instance("o1") as orders_instance,
        JsonApi(gateway_load.sandbox.url) as api,
        httpx.AsyncClient(base_url=secure, verify=False, timeout=30.0, trust_env=False) as http,
    ):
        await register(api, "orders", orders_instance)
        await until_answered(http)
        before = await asyncio.to_thread(_served_certificate, gateway_load.url)
        replace(live, "chain.pem", second[0].read_bytes())
        await gateway.wait_for_output("the key does not belong to the certificate")
        assert await asyncio.to_thread(_served_certificate, gateway_load.url) == before
        replace(keys, "key.pem", second[1].read_bytes())
        await gateway.wait_for_output("the new one is used from now on")
        deadline = time.monotonic() + 20.0
        while await asyncio.to_thread(_served_certificate, gateway_load.url) == before:
            assert time.monotonic() < deadline, "the old certificate is still in use"
            assert (await http.get("/orders/")).status_code == 200
            await asyncio.sleep(0.1)
        served = await asyncio.to_thread(_served_certificate, gateway_load.url)
        assert served == ssl.PEM_cert_to_DER_cert(second[0].read_text())
        assert (await http.get("/orders/")).status_code == 200


async def test_without_a_registry_a_gateway_serves_tls_and_renews_its_certificate(
    gateway_load: GatewayLoad, tmp_path: Path
) -> None:
    chain, key = certificate(tmp_path, "first")
    second = certificate(tmp_path, "second")
    node = await gateway_load.start_registry()
    gateway = await gateway_load.start_gateway("--tls-cert", str(chain), "--tls-key", str(key))
    await node.stop(signal.SIGKILL)
    gateway.send_signal(signal.SIGHUP)
    await gateway.wait_for_output("a new Envoy serves the last good configuration")
    assert await asyncio.to_thread(_served_certificate, gateway_load.url) == ssl.PEM_cert_to_DER_cert(chain.read_text())
    shutil.copy(second[0], chain)
    shutil.copy(second[1], key)
    await gateway.wait_for_output("the new one is used from now on")
    deadline = time.monotonic() + 20.0
    while await asyncio.to_thread(_served_certificate, gateway_load.url) != ssl.PEM_cert_to_DER_cert(
        second[0].read_text()
    ):
        assert time.monotonic() < deadline, "the old certificate is still in use"
        await asyncio.sleep(0.1)


async def test_an_expiring_certificate_is_in_the_gateways_log_and_in_the_status(
    gateway_load: GatewayLoad, tmp_path: Path
) -> None:
    chain, key = certificate(tmp_path, "for-a-day")
    await gateway_load.start_registry()
    gateway = await gateway_load.start_gateway("--tls-cert", str(chain), "--tls-key", str(key))
    await gateway.wait_for_output("the certificate of the listeners expires in")
    async with JsonApi(gateway_load.sandbox.url) as api:
        deadline = time.monotonic() + SCENARIO_TIMEOUT
        while not any(view.get("certificate_expires") for view in (await api.get("/status")).get("gateways", ())):
            assert time.monotonic() < deadline, "the registry has not got the expiry"
            await asyncio.sleep(0.1)
    status = gateway_load.sandbox.adsum("status")
    await status.wait()
    assert "its certificate expires in" in status.stdout


async def test_a_certificate_that_envoy_rejects_is_logged_and_the_old_one_stays(
    gateway_load: GatewayLoad, tmp_path: Path
) -> None:
    chain, key = certificate(tmp_path, "first")
    odd = certificate(tmp_path, "odd", curve="secp256k1")
    await gateway_load.start_registry()
    gateway = await gateway_load.start_gateway("--tls-cert", str(chain), "--tls-key", str(key))
    before = await asyncio.to_thread(_served_certificate, gateway_load.url)
    shutil.copy(odd[0], chain)
    shutil.copy(odd[1], key)
    gateway.send_signal(signal.SIGHUP)
    await gateway.wait_for_output("not reloaded, the current Envoy keeps serving")
    assert "Envoy rejects them: Failed to load certificate chain" in gateway.stderr
    assert await asyncio.to_thread(_served_certificate, gateway_load.url) == before


async def until_answered(http: httpx.AsyncClient) -> None:
    while (await http.get("/orders/")).status_code != 200:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)


async def test_systemd_receives_the_gateways_state(gateway_load: GatewayLoad, tmp_path: Path) -> None:
    await gateway_load.start_registry()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20.0)
        gateway = await gateway_load.start_gateway(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert await asyncio.to_thread(listening.recv, 100) == b"READY=1"
        gateway.send_signal(signal.SIGHUP)
        assert (await asyncio.to_thread(listening.recv, 100)).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert await asyncio.to_thread(listening.recv, 100) == b"READY=1"
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(listening.recv, 100) == b"STOPPING=1"
        assert await gateway.wait() == 0
