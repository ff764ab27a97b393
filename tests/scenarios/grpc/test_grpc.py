"""gRPC programs without a proxy, on real processes: they find each other, and lose no call."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from tests.scenarios.processes import JsonApi, ScenarioProcess, ScenarioSandbox, wait_until

PROGRAMS = "tests.integrations.programs.grpc_programs"


class GrpcNamesRegistry:
    """The registry of a scenario, and programs that follow it over xDS."""

    def __init__(self, place: ScenarioSandbox) -> None:
        self.place = place
        self.xds = f"127.0.0.1:{place.port()}"

    async def registry(self, store: str = "") -> ScenarioProcess:
        return await self.place.start_registry(store, "--xds", self.xds)

    def program(self, *argv: str) -> ScenarioProcess:
        return self.place.run(argv[0], "-m", PROGRAMS, *argv, ADSUM_GRPC_XDS=self.xds)


def _answers(caller: ScenarioProcess) -> Counter[str]:
    return Counter(caller.stdout.splitlines())


def _failures(caller: ScenarioProcess) -> list[str]:
    return [line for line in caller.stdout.splitlines() if ":" in line]


async def _passing(asking: JsonApi, *ids: str) -> None:
    await asking.wait_for_statuses("names", lambda statuses: statuses == dict.fromkeys(ids, "passing"))


@pytest.fixture
def names(place: ScenarioSandbox) -> GrpcNamesRegistry:
    return GrpcNamesRegistry(place)


@pytest.mark.parametrize("kind", ["", "sync-"], ids=["asyncio", "threads"])
async def test_servers_come_and_go_by_drain_and_no_call_fails(names: GrpcNamesRegistry, kind: str) -> None:
    await names.registry()
    running = {name: names.program(f"{kind}serve", name) for name in ("a", "b")}
    async with JsonApi(names.place.url) as asking:
        await _passing(asking, "a", "b")
        caller = names.program(f"{kind}call", "names")
        await wait_until(lambda: {"a", "b"} <= _answers(caller).keys(), lambda: caller.stdout + caller.stderr)
        names.program(f"{kind}serve", "c")
        await _passing(asking, "a", "b", "c")
        await wait_until(lambda: _answers(caller)["c"] > 3)
        assert await running["a"].stop() == 0, running["a"].stderr
        assert "ended" in running["a"].stdout
        seen = _answers(caller)
        await wait_until(lambda: _answers(caller)["b"] > seen["b"] + 20)
        assert _answers(caller)["a"] == seen["a"], "it was called after it had left"
        assert await caller.stop() == 0, caller.stderr
        assert _failures(caller) == []


@pytest.mark.parametrize("store", ["", "memory:"], ids=["kept", "empty"])
async def test_calls_go_on_while_the_registry_is_killed_and_comes_back(names: GrpcNamesRegistry, store: str) -> None:
    node = await names.registry(store)
    a = names.program("serve", "a")
    async with JsonApi(names.place.url) as asking:
        await _passing(asking, "a")
        caller = names.program("call", "names")
        await wait_until(lambda: _answers(caller)["a"], lambda: caller.stdout + caller.stderr)
        await node.stop(signal.SIGKILL)
        seen = _answers(caller)["a"]
        await wait_until(lambda: _answers(caller)["a"] > seen + 50)
        await names.registry(store)
        await _passing(asking, "a")
        names.program("serve", "b")
        await _passing(asking, "a", "b")
        # It follows again: one leaves, which is heard of at once, and the other one is called.
        assert await a.stop() == 0, a.stderr
        await wait_until(lambda: _answers(caller)["b"], lambda: caller.stdout[-1000:] + caller.stderr)
        assert _failures(caller) == []


@pytest.mark.parametrize("kind", ["", "sync-"], ids=["asyncio", "threads"])
async def test_everybody_may_go_and_come_back(names: GrpcNamesRegistry, kind: str) -> None:
    await names.registry()
    ids = ("a", "b", "c")
    async with JsonApi(names.place.url) as asking:
        running = [names.program(f"{kind}serve", id) for id in ids]
        await _passing(asking, *ids)
        caller = names.program(f"{kind}call", "names")
        await wait_until(lambda: set(ids) <= _answers(caller).keys(), lambda: caller.stdout + caller.stderr)
        for each in running:
            assert await each.stop() == 0, each.stderr
        await wait_until(
            lambda: any("EDS resource names:" in line for line in _failures(caller)), lambda: caller.stdout[-500:]
        )
        for id in ids:
            names.program(f"{kind}serve", id)
        await _passing(asking, *ids)
        seen = _answers(caller)
        await wait_until(lambda: all(_answers(caller)[id] > seen[id] + 10 for id in ids), lambda: caller.stdout[-500:])
        assert await caller.stop() == 0, caller.stderr
        assert all(line.startswith("UNAVAILABLE") for line in _failures(caller)), set(_failures(caller))
        went_well = "".join(" " if ":" in line else "." for line in caller.stdout.splitlines())
        assert len(went_well.split()) == 2, "calls failed only while nobody was there"


async def test_a_service_that_nobody_registered_fails_at_once_with_its_name(names: GrpcNamesRegistry) -> None:
    await names.registry()
    caller = names.program("call", "nobody")
    await wait_until(lambda: caller.stdout, lambda: caller.stderr)
    first = caller.stdout.splitlines()[0]
    assert first.startswith("UNAVAILABLE after ")
    assert float(first.split()[2]) < 5.0, first  # A client that is never told of it gives up after 15 s.
    assert "nobody" in first.partition(": ")[2]


async def test_the_bootstrap_for_other_languages_names_each_node_of_the_registry(names: GrpcNamesRegistry) -> None:
    nodes = ("10.0.0.1:23787", "10.0.0.2:23787")
    printed = names.place.adsum("grpc-bootstrap", "--xds", ",".join(nodes))
    assert await printed.wait() == 0
    servers = json.loads(printed.stdout)["xds_servers"]
    assert [server["server_uri"] for server in servers] == list(nodes)
    assert all(server["channel_creds"] == [{"type": "insecure"}] for server in servers)
    wrong = names.place.adsum("grpc-bootstrap", "--xds", "nowhere")
    assert await wrong.wait() == 78
    assert "HOST:PORT" in wrong.stderr


async def test_the_nodes_are_joined_only_where_all_are_ip_addresses_of_one_family(names: GrpcNamesRegistry) -> None:
    printed = names.place.adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:23787,10.0.0.2:23787")
    assert await printed.wait() == 0
    (server,) = json.loads(printed.stdout)["xds_servers"]
    assert server["server_uri"] == "ipv4:10.0.0.1:23787,10.0.0.2:23787"
    wrong = names.place.adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:23787,n2:23787")
    assert await wrong.wait() == 78
    assert "--joined needs IP addresses of one family" in wrong.stderr
