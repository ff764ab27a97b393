"""Proxyless gRPC programs as real processes: they find each other, and no call fails."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from tests.scenarios.processes import JsonApi, ScenarioProcess, ScenarioSandbox, wait_until

PROGRAMS = "tests.integrations.programs.grpc_programs"


class GrpcNamesRegistry:
    """The registry of a scenario, and programs that use it over xDS."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = f"127.0.0.1:{sandbox.port()}"

    async def start_registry(self, store: str = "") -> ScenarioProcess:
        return await self.sandbox.start_registry(store, "--xds", self.xds)

    def program(self, *argv: str) -> ScenarioProcess:
        return self.sandbox.run(argv[0], "-m", PROGRAMS, *argv, ADSUM_GRPC_XDS=self.xds)


def _answers(caller: ScenarioProcess) -> Counter[str]:
    return Counter(caller.stdout.splitlines())


def _failures(caller: ScenarioProcess) -> list[str]:
    return [line for line in caller.stdout.splitlines() if ":" in line]


async def _wait_until_passing(api: JsonApi, *ids: str) -> None:
    await api.wait_for_statuses("names", lambda statuses: statuses == dict.fromkeys(ids, "passing"))


@pytest.fixture
def names(sandbox: ScenarioSandbox) -> GrpcNamesRegistry:
    return GrpcNamesRegistry(sandbox)


@pytest.mark.parametrize("kind", ["", "sync-"], ids=["asyncio", "threads"])
async def test_no_call_fails_while_servers_register_and_drain(names: GrpcNamesRegistry, kind: str) -> None:
    await names.start_registry()
    running = {name: names.program(f"{kind}serve", name) for name in ("a", "b")}
    async with JsonApi(names.sandbox.url) as api:
        await _wait_until_passing(api, "a", "b")
        caller = names.program(f"{kind}call", "names")
        await wait_until(lambda: {"a", "b"} <= _answers(caller).keys(), lambda: caller.stdout + caller.stderr)
        names.program(f"{kind}serve", "c")
        await _wait_until_passing(api, "a", "b", "c")
        await wait_until(lambda: _answers(caller)["c"] > 3)
        assert await running["a"].stop() == 0, running["a"].stderr
        assert "ended" in running["a"].stdout
        seen = _answers(caller)
        await wait_until(lambda: _answers(caller)["b"] > seen["b"] + 20)
        assert _answers(caller)["a"] == seen["a"], "a drained server is not called"
        assert await caller.stop() == 0, caller.stderr
        assert _failures(caller) == []


@pytest.mark.parametrize("store", ["", "memory:"], ids=["kept", "empty"])
async def test_calls_continue_while_the_registry_is_killed_and_restarted(names: GrpcNamesRegistry, store: str) -> None:
    node = await names.start_registry(store)
    a = names.program("serve", "a")
    async with JsonApi(names.sandbox.url) as api:
        await _wait_until_passing(api, "a")
        caller = names.program("call", "names")
        await wait_until(lambda: _answers(caller)["a"], lambda: caller.stdout + caller.stderr)
        await node.stop(signal.SIGKILL)
        seen = _answers(caller)["a"]
        await wait_until(lambda: _answers(caller)["a"] > seen + 50)
        await names.start_registry(store)
        await _wait_until_passing(api, "a")
        names.program("serve", "b")
        await _wait_until_passing(api, "a", "b")
        # The caller follows the registry again: one server drains, and the other one is called.
        assert await a.stop() == 0, a.stderr
        await wait_until(lambda: _answers(caller)["b"], lambda: caller.stdout[-1000:] + caller.stderr)
        assert _failures(caller) == []


@pytest.mark.parametrize("kind", ["", "sync-"], ids=["asyncio", "threads"])
async def test_calls_succeed_again_after_all_servers_were_gone(names: GrpcNamesRegistry, kind: str) -> None:
    await names.start_registry()
    ids = ("a", "b", "c")
    async with JsonApi(names.sandbox.url) as api:
        running = [names.program(f"{kind}serve", id) for id in ids]
        await _wait_until_passing(api, *ids)
        caller = names.program(f"{kind}call", "names")
        await wait_until(lambda: set(ids) <= _answers(caller).keys(), lambda: caller.stdout + caller.stderr)
        for server in running:
            assert await server.stop() == 0, server.stderr
        await wait_until(
            lambda: any("EDS resource names:" in line for line in _failures(caller)), lambda: caller.stdout[-500:]
        )
        for id in ids:
            names.program(f"{kind}serve", id)
        await _wait_until_passing(api, *ids)
        seen = _answers(caller)
        await wait_until(lambda: all(_answers(caller)[id] > seen[id] + 10 for id in ids), lambda: caller.stdout[-500:])
        assert await caller.stop() == 0, caller.stderr
        assert all(line.startswith("UNAVAILABLE") for line in _failures(caller)), set(_failures(caller))
        periods = "".join(" " if ":" in line else "." for line in caller.stdout.splitlines())
        assert len(periods.split()) == 2, "calls failed only while there was no server"


async def test_calls_to_an_unknown_service_fail_at_once_with_its_name(names: GrpcNamesRegistry) -> None:
    await names.start_registry()
    caller = names.program("call", "nobody")
    await wait_until(lambda: caller.stdout, lambda: caller.stderr)
    first = caller.stdout.splitlines()[0]
    assert first.startswith("UNAVAILABLE after ")
    assert float(first.split()[2]) < 5.0, first  # Without an answer from the registry it would give up after 15 s.
    assert "nobody" in first.partition(": ")[2]


async def test_the_bootstrap_for_other_languages_names_each_node_of_the_registry(names: GrpcNamesRegistry) -> None:
    nodes = ("10.0.0.1:23787", "10.0.0.2:23787")
    printed = names.sandbox.adsum("grpc-bootstrap", "--xds", ",".join(nodes))
    assert await printed.wait() == 0
    servers = json.loads(printed.stdout)["xds_servers"]
    assert [server["server_uri"] for server in servers] == list(nodes)
    assert all(server["channel_creds"] == [{"type": "insecure"}] for server in servers)
    invalid = names.sandbox.adsum("grpc-bootstrap", "--xds", "nowhere")
    assert await invalid.wait() == 78
    assert "HOST:PORT" in invalid.stderr


async def test_nodes_are_joined_only_if_all_are_ip_addresses_of_one_family(names: GrpcNamesRegistry) -> None:
    printed = names.sandbox.adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:23787,10.0.0.2:23787")
    assert await printed.wait() == 0
    (server,) = json.loads(printed.stdout)["xds_servers"]
    assert server["server_uri"] == "ipv4:10.0.0.1:23787,10.0.0.2:23787"
    invalid = names.sandbox.adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:23787,n2:23787")
    assert await invalid.wait() == 78
    assert "--joined: needs nodes with IP addresses of one family" in invalid.stderr
