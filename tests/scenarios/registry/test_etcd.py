"""Three nodes over a three-member etcd, through all kinds of failures.

In each scenario no acknowledged write is lost, no instance leaves or fails without a cause, no view goes backwards,
no call fails, one node probes each instance, and the cluster recovers by itself.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from adsum.client.client import Client
from adsum.client.views.resolver import Resolver
from adsum.stores.etcd import membership
from tests.scenarios.instance_server import running_instance
from tests.scenarios.operation_history import CHURN_SERVICES, HistoryWriter, OperationHistory
from tests.scenarios.probed_instance import ProbedInstance, probed_instance
from tests.scenarios.processes import JsonApi, ScenarioSandbox, wait_until
from tests.scenarios.registry_cluster import ClusterNode, RegistryCluster, running_cluster, wait_for_status
from tests.scenarios.service_caller import ServiceCaller, load
from tests.scenarios.sse_watcher import SseWatcher

WRITERS = 6
STEADY = 4
TTL = 6.0
"""The ttl of the instances that renew throughout, in seconds."""
SESSION = membership.SESSION_TTL
"""Seconds without contact with etcd after which a node keeps no instances any more."""
CHECK = "http:/health?interval=200ms&timeout=2s&rise=1&fall=3"
ALWAYS = {"steady": ["registered"], "checked": ["check-passing", "registered"]}
"""The causes of changes of each service's instances, newest first, whatever happens to nodes."""


@pytest.fixture
async def world(sandbox: ScenarioSandbox, envoy: None, request: pytest.FixtureRequest) -> AsyncIterator[EtcdScenario]:
    """A cluster in use. `request.param` is the ttl of the instances that renew, in seconds."""
    async with running_cluster(sandbox) as found, AsyncExitStack() as stack:
        world = EtcdScenario(found, stack, getattr(request, "param", TTL))
        await world.open()
        yield world


class EtcdScenario:
    """A cluster and its users: instances, writers, watchers, a caller, and a gateway with a caller."""

    def __init__(self, found: RegistryCluster, stack: AsyncExitStack, ttl: float) -> None:
        self.cluster = found
        self.ttl = ttl
        self._stack = stack
        self._history = OperationHistory()
        self._tasks: list[asyncio.Task[None]] = []
        self._watchers: list[SseWatcher] = []
        self.refused: list[str] = []
        """Failed requests at the gateway."""
        self.passed = 0

    async def open(self) -> None:
        urls = [node.url for node in self.cluster.nodes]
        client = self.client = await self._stack.enter_async_context(Client(self.cluster.urls, cache=False))
        lease: dict[str, Any] = {"ttl": self.ttl, "grace": self.ttl}
        for n in range(STEADY):
            one = await self._stack.enter_async_context(running_instance(f"s{n}"))
            registrar = client.register("steady", one.port, id=one.id, address="127.0.0.1", **lease)
            await registrar.start(30.0)
        self.checked: ProbedInstance = await self._stack.enter_async_context(probed_instance(self._pids))
        registrar = client.register("checked", self.checked.port, id="c0", address="127.0.0.1", check=CHECK, **lease)
        await registrar.start(30.0)
        channel = client.channel("steady")
        await channel.ready(30.0)
        self.caller: ServiceCaller = await self._stack.enter_async_context(load(channel))
        await self._open_gateway()
        self._watchers = [SseWatcher(url) for url in urls]
        resolvers = [client.resolver(f"churn-{n}") for n in range(CHURN_SERVICES)]
        writers = [HistoryWriter(self._history, urls[n % 3 :] + urls[: n % 3], n) for n in range(WRITERS)]
        work: list[Callable[[], Awaitable[None]]] = [
            *(watcher.follow for watcher in self._watchers),
            *(lambda resolver=resolver: _check_never_backwards(resolver) for resolver in resolvers),
            *(writer.write for writer in writers),
        ]
        self._tasks = [asyncio.ensure_future(start()) for start in work]
        self._writing = self._tasks[-WRITERS:]
        self._stack.push_async_callback(self._end, self._tasks)
        await self.wait_for_progress()

    def _pids(self) -> dict[int, str]:
        return {node.pid: node.name for node in self.cluster.nodes}

    async def prober(self) -> ClusterNode:
        """Returns the node that checks the instance, once all of the last probes were its own."""
        await wait_until(lambda: self.checked.sole_prober(10), lambda: self.checked.probed_by[-20:])
        return next(node for node in self.cluster.nodes if node.name == self.checked.sole_prober(1))

    async def _open_gateway(self) -> None:
        """Starts a gateway that can connect to any node, and a caller at it."""
        listen = f"127.0.0.1:{self.cluster.sandbox.port()}"
        options = ["--listen", listen, "--xds", self.cluster.xds, "--monitor", "off", "--access-log", "off"]
        gateway = self.cluster.sandbox.adsum("gateway", *options, "--concurrency", "1")
        await gateway.wait_for_output("listens on")
        http = httpx.AsyncClient(base_url=f"http://{listen}", timeout=10.0, trust_env=False)
        await self._stack.enter_async_context(http)
        while (await http.get("/steady/")).status_code != 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
        calling = [asyncio.create_task(self._call_gateway(http))]
        self._stack.push_async_callback(self._end, calling)

    async def _call_gateway(self, http: httpx.AsyncClient) -> None:
        while True:
            try:
                answer = await http.get("/steady/")
            except httpx.HTTPError as error:
                self.refused.append(repr(error))
            else:
                if answer.status_code != 200:
                    self.refused.append(f"{answer.status_code}: {answer.text}")
                self.passed += 1
            await asyncio.sleep(0.03)

    async def wait_for_progress(self) -> None:
        """Returns once further writes have been acknowledged."""
        before = self._history.acknowledged
        deadline = asyncio.get_running_loop().time() + 40.0
        while self._history.acknowledged < before + 20:
            assert asyncio.get_running_loop().time() < deadline, "no write is acknowledged any more"
            self._check_tasks()
            await asyncio.sleep(0.05)

    async def check(self, always: Mapping[str, Sequence[str]] = ALWAYS) -> None:
        """Checks that the cluster recovers by itself, and that no write was lost and no view went backwards."""
        await self.wait_for_progress()
        await self.cluster.wait_until_balanced(3)
        self._check_tasks()
        await self.prober()
        await self._end(self._writing)
        status = await self._agreed_status()
        for node in self.cluster.nodes:
            async with JsonApi(node.url) as api:
                found = {id for n in range(CHURN_SERVICES) for id in await api.statuses(f"churn-{n}")}
                self._history.check(found)
                for service, causes in always.items():
                    statuses = await api.statuses(service)
                    assert len(statuses) == (STEADY if service == "steady" else 1)
                    assert set(statuses.values()) == {"passing"}
                    for id in statuses:
                        changes = (await api.get("/changes", service=service, id=id))["changes"]
                        assert [change["cause"] for change in changes] == causes, changes
        for watcher in self._watchers:
            await _wait_until(lambda watcher=watcher: watcher.revision >= status["revision"])  # type: ignore[misc]
            assert len(watcher.epochs) == 1
        assert self.caller.failures == []
        assert self.refused == [], "the gateway serves all the time"
        assert sum(self.caller.answered.values()) > 20

    async def _agreed_status(self) -> dict[str, Any]:
        """Returns the status of the nodes once all are at the same revision of the same epoch."""
        deadline = asyncio.get_running_loop().time() + 20.0
        while True:
            statuses = []
            for node in self.cluster.nodes:
                async with JsonApi(node.url) as api:
                    statuses.append(await api.get("/status"))
            if len({(answer["epoch"], answer["revision"]) for answer in statuses}) == 1:
                status: dict[str, Any] = statuses[0]
                return status
            assert asyncio.get_running_loop().time() < deadline, statuses
            await asyncio.sleep(0.1)

    def _check_tasks(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    @staticmethod
    async def _end(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _check_never_backwards(resolver: Resolver) -> None:
    position = ("", 0)
    async for view in resolver.watch():
        assert position[0] in ("", view.epoch)
        assert view.revision >= position[1], f"{view} after {position}"
        position = (view.epoch, view.revision)


async def _wait_until(is_true: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 30.0
    while not is_true():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_each_node_is_killed_and_comes_back(world: EtcdScenario) -> None:
    """Kills first the node that checks the instance, which another one then checks within seconds, then the others."""
    keeper = await world.prober()
    await keeper.stop(signal.SIGKILL)
    await wait_until(lambda: world.checked.sole_prober(1) != keeper.name, timeout=15.0)
    await world.cluster.wait_until_balanced(2)
    for number in range(keeper.number, keeper.number + 3):
        node = world.cluster.nodes[number % 3]
        if node is not keeper:
            await node.stop(signal.SIGKILL)
        await world.wait_for_progress()
        await world.cluster.restart_node(node.number)
    await world.check()


async def test_another_node_takes_the_share_of_a_node_that_is_stopped_at_once(world: EtcdScenario) -> None:
    assert await world.cluster.nodes[1].stop() == 0
    await world.cluster.wait_until_balanced(2)
    await world.cluster.restart_node(1)
    await world.check()


async def test_a_node_hangs_for_longer_than_its_session_lasts(world: EtcdScenario) -> None:
    world.cluster.nodes[0].send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.4 * SESSION)
    world.cluster.nodes[0].send_signal(signal.SIGCONT)
    await world.check()


async def test_a_node_is_cut_off_from_etcd(world: EtcdScenario) -> None:
    for wire in world.cluster.etcd_wires[0]:
        wire.partition()
    async with JsonApi(world.cluster.nodes[0].url) as api:
        await wait_for_status(api, lambda status: status["age"] > SESSION and "shards" not in status)
        status = await api.get("/status")
        assert "shards" not in status, "a node without a certain session keeps nothing"
        assert status["store_condition"]["trouble"]
        assert float((await api.http.get("/services/steady")).headers["adsum-age"]) > SESSION
        refused = await api.http.put("/services/late/instances/l1", json={"port": 8000})
        assert (refused.status_code, refused.headers["retry-after"] != "") == (503, True)
    for wire in world.cluster.etcd_wires[0]:
        wire.heal()
    await world.check()


async def test_a_node_that_reaches_etcd_is_unreachable_from_the_others(world: EtcdScenario) -> None:
    for wire in world.cluster.node_wires:
        wire.partition()
    await asyncio.sleep(3 * TTL)
    for node in world.cluster.nodes:
        async with JsonApi(node.url) as api:
            assert set((await api.statuses("steady")).values()) == {"passing"}
    for wire in world.cluster.node_wires:
        wire.heal()
    await world.check()


async def test_the_keeper_of_an_instance_and_the_instance_can_not_reach_each_other(world: EtcdScenario) -> None:
    """Cuts the keeper off from an instance. It reaches etcd and the other nodes, at which its instances renew.

    An instance that it can't probe is critical and stays listed. An instance without checks stays passing. All recovers
    by itself.
    """
    keeper = await world.prober()
    others = [node.url for node in world.cluster.nodes if node is not keeper]
    async with Client(others, cache=False) as client, JsonApi(others[0]) as api:
        # It belongs to the same service, so that the same node keeps it.
        renewing = client.register("checked", 8000, id="r0", ttl=TTL, grace=TTL, address="127.0.0.1", drain_wait=0.0)
        await renewing.start(30.0)
        world.checked.unreachable_from.add(keeper.name)
        await api.wait_for_statuses("checked", lambda statuses: statuses == {"c0": "critical", "r0": "passing"})
        await asyncio.sleep(2 * TTL)
        assert await api.statuses("checked") == {"c0": "critical", "r0": "passing"}
        (change, *_) = (await api.get("/changes", service="checked", id="c0"))["changes"]
        assert (change["cause"], "no answer" in change["reason"]) == ("check-critical", True), change
        world.checked.unreachable_from.clear()
        await api.wait_for_statuses("checked", lambda statuses: statuses == {"c0": "passing", "r0": "passing"})
        changes = (await api.get("/changes", service="checked", id="r0"))["changes"]
        assert [change["cause"] for change in changes] == ["registered"], "every renewal at another node has counted"
        assert await world.prober() is keeper
        await renewing.stop()
    checked = ["check-passing", "check-critical", *ALWAYS["checked"]]
    await world.check({**ALWAYS, "checked": checked})


async def test_a_member_of_etcd_is_killed_and_comes_back(world: EtcdScenario) -> None:
    leader = await world.cluster.leader()
    follower = next(member for member in world.cluster.members if member is not leader)
    follower.kill()
    await world.wait_for_progress()
    follower.start()
    await world.check()


async def test_the_leader_of_etcd_is_killed_and_comes_back(world: EtcdScenario) -> None:
    leader = await world.cluster.leader()
    leader.kill()
    await world.wait_for_progress()
    leader.start()
    await world.check()


async def test_the_leader_of_etcd_hangs(world: EtcdScenario) -> None:
    leader = await world.cluster.leader()
    leader.pause()
    await world.wait_for_progress()
    await asyncio.sleep(1.2 * SESSION)
    leader.resume()
    await world.check()


async def test_all_of_etcd_is_started_again(world: EtcdScenario) -> None:
    for member in world.cluster.members:
        member.kill()
    for member in world.cluster.members:
        member.start()
    await world.check()


@pytest.mark.long
@pytest.mark.parametrize("world", [8.0], indirect=True)
async def test_etcd_is_away_for_ten_times_the_ttl(world: EtcdScenario) -> None:
    for member in world.cluster.members:
        member.kill()
    await asyncio.sleep(10 * world.ttl)
    for node in world.cluster.nodes:
        async with JsonApi(node.url) as api:
            assert len(await api.statuses("steady")) == STEADY
            assert (await api.http.get(f"{node.url}/readyz")).status_code == 503
    for member in world.cluster.members:
        member.start()
    await world.check()


async def test_what_a_node_missed_is_compacted_away(world: EtcdScenario) -> None:
    for wire in world.cluster.etcd_wires[2]:
        wire.partition()
    async with JsonApi(world.cluster.nodes[2].url) as api:
        await wait_for_status(api, lambda status: status["age"] > 1.0)
    await world.wait_for_progress()
    async with JsonApi(world.cluster.nodes[0].url) as api:
        revision = (await api.get("/status"))["revision"]
    world.cluster.members[0].compact(revision)
    for wire in world.cluster.etcd_wires[2]:
        wire.heal()
    await world.check()
