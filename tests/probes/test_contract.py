"""The contract of `adsum.ports.Probe`, for every kind of check."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from socket import gaierror
from typing import Any

import pytest

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import CheckKind, Result
from adsum.ports import Probe
from adsum.probes import PROBES, Probes, load_probe
from tests.probes.servers import HERE, check, closed_port, grpc_serving, instance, respond_with, serving, silent, until

Names = Callable[..., None]


@asynccontextmanager
async def up(kind: CheckKind) -> AsyncIterator[int]:
    """A healthy instance. Yields its port."""
    if kind is CheckKind.GRPC:
        async with grpc_serving({"": 1}) as port:
            yield port
    else:
        async with serving(respond_with(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
            yield server.port


@pytest.fixture(params=list(PROBES))
def kind(request: pytest.FixtureRequest) -> CheckKind:
    kind: CheckKind = request.param
    return kind


@pytest.fixture
def probe(kind: CheckKind) -> Probe:
    return load_probe(kind, AddressPolicy())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Makes every name resolve to the given addresses, and records the names."""

    def resolve(*ips: str, names_seen: list[str] | None = None, error: Exception | None = None) -> None:
        async def getaddrinfo(self: Any, host: str, port: Any, **_: Any) -> list[Any]:
            if names_seen is not None:
                names_seen.append(host)
            if error is not None:
                raise error
            if not ips:
                await asyncio.Event().wait()
            return [(None, None, None, "", (ip, port)) for ip in ips]

        for loop in {type(asyncio.get_running_loop()), asyncio.BaseEventLoop}:
            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    return resolve


def test_every_kind_of_check_has_a_probe() -> None:
    assert set(PROBES) == set(CheckKind)


async def test_an_instance_that_is_up_passes(kind: CheckKind, probe: Probe) -> None:
    async with up(kind) as port:
        outcome = await probe.probe(instance(port), check(kind))
    assert outcome.result is Result.PASS
    assert outcome.note
    assert 0 < outcome.took < 20
    await probe.close()
    await probe.close()


async def test_the_probe_goes_to_the_port_of_the_check_if_it_has_one(kind: CheckKind, probe: Probe) -> None:
    async with up(kind) as port:
        outcome = await probe.probe(instance(closed_port()), check(kind, port=port))
    assert outcome.result is Result.PASS


async def test_one_object_probes_every_kind(kind: CheckKind) -> None:
    probes = Probes(AddressPolicy())
    async with up(kind) as port:
        assert (await probes.probe(instance(port), check(kind))).result is Result.PASS
        assert (await probes.probe(instance(port), check(kind))).result is Result.PASS
    await probes.close()


async def test_a_closed_port_fails_with_a_description(kind: CheckKind, probe: Probe) -> None:
    port = closed_port()
    outcome = await probe.probe(instance(port), check(kind))
    assert outcome.result is Result.FAIL
    assert outcome.note == f"connection refused by {HERE}:{port}"


async def test_a_name_is_resolved_and_reached(kind: CheckKind, probe: Probe, names: Names) -> None:
    names_seen: list[str] = []
    names(HERE, names_seen=names_seen)
    async with up(kind) as port:
        outcome = await probe.probe(instance(port, "instance.test"), check(kind))
    assert outcome.result is Result.PASS
    assert names_seen == ["instance.test"]


async def test_the_addresses_of_a_name_are_tried_in_turn(kind: CheckKind, probe: Probe, names: Names) -> None:
    names("127.0.0.2", HERE)
    async with up(kind) as port:
        outcome = await probe.probe(instance(port, "instance.test"), check(kind))
    assert outcome.result is Result.PASS


async def test_a_name_that_does_not_resolve_fails_with_a_description(
    kind: CheckKind, probe: Probe, names: Names
) -> None:
    names(error=gaierror(-2, "Name or service not known"))
    outcome = await probe.probe(instance(1, "instance.test"), check(kind))
    assert outcome.result is Result.FAIL
    assert outcome.note == "the name instance.test doesn't resolve: Name or service not known"


async def test_a_name_that_takes_too_long_to_resolve_fails_in_time(kind: CheckKind, probe: Probe, names: Names) -> None:
    names()
    outcome = await probe.probe(instance(1, "instance.test"), check(kind, timeout=0.2))
    assert outcome.result is Result.FAIL
    assert outcome.note == "no answer within 0.2 s"


async def test_an_instance_that_hangs_fails_in_time(kind: CheckKind, probe: Probe) -> None:
    if kind is CheckKind.TCP:
        pytest.skip("a server that accepts connections passes a TCP check")
    async with serving(silent) as server:
        outcome = await probe.probe(instance(server.port), check(kind, timeout=0.3))
        assert outcome.result is Result.FAIL
        assert outcome.note == "no answer within 0.3 s"


async def test_the_address_policy_is_checked_before_a_connection(kind: CheckKind) -> None:
    probe = load_probe(kind, AddressPolicy(denied=("127.0.0.0/8",)))
    async with serving(silent) as server:
        outcome = await probe.probe(instance(server.port), check(kind))
        assert not server.connections
    assert outcome.result is Result.FAIL
    assert outcome.note == f"{HERE} is in a network that checks may not go to"


async def test_a_name_with_a_denied_address_is_not_connected(kind: CheckKind, probe: Probe, names: Names) -> None:
    names("169.254.169.254")
    outcome = await probe.probe(instance(80, "metadata.test"), check(kind))
    assert outcome.result is Result.FAIL
    assert outcome.note.startswith("metadata.test: 169.254.169.254 is link-local")


async def test_only_allowed_addresses_of_a_name_are_tried(kind: CheckKind, names: Names) -> None:
    names("127.0.0.1", "127.0.0.2")
    probe = load_probe(kind, AddressPolicy(denied=("127.0.0.1",)))
    async with up(kind) as port:
        outcome = await probe.probe(instance(port, "instance.test"), check(kind))
    assert outcome.result is Result.FAIL
    assert outcome.note == f"connection refused by 127.0.0.2:{port}"


async def test_a_probe_cancelled_while_it_waits_for_the_answer_leaves_nothing_open(
    kind: CheckKind, probe: Probe
) -> None:
    if kind is CheckKind.TCP:
        pytest.skip("there is no answer to wait for")
    async with serving(silent) as server:
        task = asyncio.create_task(probe.probe(instance(server.port), check(kind, timeout=2.0)))
        await until(lambda: server.open == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.open == 0)
    await probe.close()
    gc.collect()


async def test_probes_cancelled_at_any_moment_leave_nothing_open(kind: CheckKind, probe: Probe) -> None:
    async with serving(silent) as server:
        for turns in range(12):
            task = asyncio.create_task(probe.probe(instance(server.port), check(kind, timeout=1.0)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            del task  # Its traceback would keep grpc's call alive, and that its channel.
        await until(lambda: server.open == 0)
    await probe.close()
    gc.collect()


async def test_concurrent_probes_do_not_mix_up(kind: CheckKind, probe: Probe) -> None:
    async with up(kind) as port:
        ports = [port if n % 2 else closed_port() for n in range(20)]
        outcomes = await asyncio.gather(*(probe.probe(instance(target), check(kind)) for target in ports))
    assert [outcome.result is Result.PASS for outcome in outcomes] == [target == port for target in ports]
