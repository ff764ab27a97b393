"""gRPC programs without a proxy, on real processes: they find each other, and lose no call."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from tests.scenarios.processes import Asking, Child, Place, until

PROGRAMS = "tests.integrations.programs.grpc_programs"


class Names:
    """The registry of a scenario, and programs that follow it over xDS."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.xds = f"127.0.0.1:{place.port()}"

    async def registry(self, store: str = "") -> Child:
        return await self.place.serve(store, "--xds", self.xds)

    def program(self, *argv: str) -> Child:
        return self.place.run(argv[0], "-m", PROGRAMS, *argv, ADSUM_GRPC_XDS=self.xds)


def _answers(caller: Child) -> Counter[str]:
    return Counter(caller.out.splitlines())


def _failures(caller: Child) -> list[str]:
    return [line for line in caller.out.splitlines() if ":" in line]


async def _passing(asking: Asking, *ids: str) -> None:
    await asking.stand("names", lambda statuses: statuses == dict.fromkeys(ids, "passing"))


@pytest.fixture
def names(place: Place) -> Names:
    return Names(place)


@pytest.mark.parametrize("kind", ["", "sync-"], ids=["asyncio", "threads"])
async def test_servers_come_and_go_by_drain_and_no_call_fails(names: Names, kind: str) -> None:
    await names.registry()
    running = {name: names.program(f"{kind}serve", name) for name in ("a", "b")}
    async with Asking(names.place.url) as asking:
        await _passing(asking, "a", "b")
        caller = names.program(f"{kind}call", "names")
        await until(lambda: {"a", "b"} <= _answers(caller).keys(), lambda: caller.out + caller.errors)
        names.program(f"{kind}serve", "c")
        await _passing(asking, "a", "b", "c")
        await until(lambda: _answers(caller)["c"] > 3)
        assert await running["a"].end() == 0, running["a"].errors
        assert "ended" in running["a"].out
        seen = _answers(caller)
        await until(lambda: _answers(caller)["b"] > seen["b"] + 20)
        assert _answers(caller)["a"] == seen["a"], "it was called after it had left"
        assert await caller.end() == 0, caller.errors
        assert _failures(caller) == []


@pytest.mark.parametrize("store", ["", "memory:"], ids=["kept", "empty"])
async def test_calls_go_on_while_the_registry_is_killed_and_comes_back(names: Names, store: str) -> None:
    node = await names.registry(store)
    a = names.program("serve", "a")
    async with Asking(names.place.url) as asking:
        await _passing(asking, "a")
        caller = names.program("call", "names")
        await until(lambda: _answers(caller)["a"], lambda: caller.out + caller.errors)
        await node.end(signal.SIGKILL)
        seen = _answers(caller)["a"]
        await until(lambda: _answers(caller)["a"] > seen + 50)
        await names.registry(store)
        await _passing(asking, "a")
        names.program("serve", "b")
        await _passing(asking, "a", "b")
        # It follows again: one leaves, which is heard of at once, and the other one is called.
        assert await a.end() == 0, a.errors
        await until(lambda: _answers(caller)["b"], lambda: caller.out[-1000:] + caller.errors)
        assert _failures(caller) == []


@pytest.mark.parametrize("kind", ["", "sync-"], ids=["asyncio", "threads"])
async def test_everybody_may_go_and_come_back(names: Names, kind: str) -> None:
    await names.registry()
    ids = ("a", "b", "c")
    async with Asking(names.place.url) as asking:
        running = [names.program(f"{kind}serve", id) for id in ids]
        await _passing(asking, *ids)
        caller = names.program(f"{kind}call", "names")
        await until(lambda: set(ids) <= _answers(caller).keys(), lambda: caller.out + caller.errors)
        for each in running:
            assert await each.end() == 0, each.errors
        await until(lambda: any("EDS resource names:" in line for line in _failures(caller)), lambda: caller.out[-500:])
        for id in ids:
            names.program(f"{kind}serve", id)
        await _passing(asking, *ids)
        seen = _answers(caller)
        await until(lambda: all(_answers(caller)[id] > seen[id] + 10 for id in ids), lambda: caller.out[-500:])
        assert await caller.end() == 0, caller.errors
        assert all(line.startswith("UNAVAILABLE") for line in _failures(caller)), set(_failures(caller))
        went_well = "".join(" " if ":" in line else "." for line in caller.out.splitlines())
        assert len(went_well.split()) == 2, "calls failed only while nobody was there"


async def test_a_service_that_nobody_registered_fails_at_once_with_its_name(names: Names) -> None:
    await names.registry()
    caller = names.program("call", "nobody")
    await until(lambda: caller.out, lambda: caller.errors)
    first = caller.out.splitlines()[0]
    assert first.startswith("UNAVAILABLE after ")
    assert float(first.split()[2]) < 5.0, first  # A client that is never told of it gives up after 15 s.
    assert "nobody" in first.partition(": ")[2]


async def test_the_bootstrap_for_other_languages_names_each_node_of_the_registry(names: Names) -> None:
    nodes = ("10.0.0.1:23787", "10.0.0.2:23787")
    printed = names.place.adsum("grpc-bootstrap", "--xds", ",".join(nodes))
    assert await printed.ended() == 0
    servers = json.loads(printed.out)["xds_servers"]
    assert [server["server_uri"] for server in servers] == list(nodes)
    assert all(server["channel_creds"] == [{"type": "insecure"}] for server in servers)
    wrong = names.place.adsum("grpc-bootstrap", "--xds", "nowhere")
    assert await wrong.ended() == 78
    assert "HOST:PORT" in wrong.errors


async def test_the_nodes_are_joined_only_where_all_are_ip_addresses_of_one_family(names: Names) -> None:
    printed = names.place.adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:23787,10.0.0.2:23787")
    assert await printed.ended() == 0
    (server,) = json.loads(printed.out)["xds_servers"]
    assert server["server_uri"] == "ipv4:10.0.0.1:23787,10.0.0.2:23787"
    wrong = names.place.adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:23787,n2:23787")
    assert await wrong.ended() == 78
    assert "--joined needs IP addresses of one family" in wrong.errors
