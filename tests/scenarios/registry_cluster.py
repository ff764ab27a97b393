"""Three nodes over a three-member etcd, every wire between them one that can be cut; and what is done to them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from adsum.etcd.address import EtcdAddress as EtcdPlace
from adsum.etcd.client import EtcdClient as Connection
from tests.scenarios.processes import ADSUM_COMMAND, JsonApi, ScenarioProcess, ScenarioSandbox
from tests.support import etcd_process
from tests.support.etcd_process import EtcdProcess
from tests.support.tcp_proxy import TcpProxy

NODES = 3


class ClusterNode(ScenarioProcess):
    """One of several nodes of a registry, over etcd."""

    def __init__(self, folder: Path, number: int, port: int, xds: int, store: str, advertised: int) -> None:
        self.url, self.xds = f"http://127.0.0.1:{port}", f"127.0.0.1:{xds}"
        argv = [*ADSUM_COMMAND, "serve", "--node", f"n{number}", "--listen", f"127.0.0.1:{port}", "--xds", self.xds]
        argv += ["--store", store, "--advertise", f"http://127.0.0.1:{advertised}"]
        super().__init__(f"n{number}", argv, folder)
        self.number = number


class RegistryCluster:
    """The nodes, the members of etcd, and the wires from each node to each member, and from the others to each node."""

    def __init__(self, place: ScenarioSandbox, members: Sequence[EtcdProcess]) -> None:
        self.place = place
        self.members = members
        self.etcd_wires: list[list[TcpProxy]] = []
        self.node_wires: list[TcpProxy] = []
        self.nodes: list[ClusterNode] = []
        self._ports = [(place.port(), place.port()) for _ in range(NODES)]

    @property
    def urls(self) -> str:
        return ",".join(f"http://127.0.0.1:{port}" for port, _ in self._ports)

    @property
    def xds(self) -> str:
        return ",".join(f"127.0.0.1:{xds}" for _, xds in self._ports)

    async def start(self) -> None:
        self.etcd_wires = [[await TcpProxy(member.port).open() for member in self.members] for _ in range(NODES)]
        self.node_wires = [await TcpProxy(port).open() for port, _ in self._ports]
        self.nodes = [self._node(number) for number in range(NODES)]
        for node in self.nodes:
            await node.wait_for_output("listens on")
        await self.wait_until_balanced(NODES)

    def _node(self, number: int) -> ClusterNode:
        store = "etcd://" + ",".join(f"127.0.0.1:{wire.port}" for wire in self.etcd_wires[number])
        return ClusterNode(self.place.folder, number, *self._ports[number], store, self.node_wires[number].port)

    async def restart_node(self, number: int) -> None:
        """A node that was killed comes back."""
        self.nodes[number] = self._node(number)
        await self.wait_until_ready(number)

    async def wait_until_ready(self, number: int) -> None:
        async with JsonApi(self.nodes[number].url) as asking:
            await wait_for_status(asking, lambda status: status["ready"] and status.get("age", 0.0) < 3.0)

    async def wait_until_balanced(self, nodes: int) -> None:
        """Return when everything is kept by that many nodes, each of which says the same."""
        for node in self.nodes:
            if node.process.poll() is None:
                async with JsonApi(node.url) as asking:
                    await wait_for_status(asking, lambda status: _shared(status, nodes))

    async def leader(self) -> EtcdProcess:
        """The member of etcd that leads."""
        for member in self.members:
            connection = Connection(EtcdPlace.parse(member.url), Random())
            try:
                state = await connection.status()
            finally:
                await connection.close()
            if state.leader == state.header.member:
                return member
        raise AssertionError("nobody leads")

    async def close(self) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.send_signal(signal.SIGCONT)
            node.kill()
        for wire in (*self.node_wires, *(wire for wires in self.etcd_wires for wire in wires)):
            await wire.close()


@asynccontextmanager
async def running_cluster(place: ScenarioSandbox) -> AsyncIterator[RegistryCluster]:
    """All up, and the nodes know one another."""
    async with AsyncExitStack() as stack:
        members = stack.enter_context(etcd_process.etcd_cluster(place.folder))
        found = RegistryCluster(place, members)
        stack.push_async_callback(found.close)
        await found.start()
        yield found


def _shared(status: dict[str, Any], nodes: int) -> bool:
    shares = [status.get("shards", 0), *(peer["shards"] for peer in status.get("peers", []))]
    return len(shares) == nodes and sum(shares) == 256 and all(shares)


async def wait_for_status(asking: JsonApi, true: Callable[[dict[str, Any]], bool], patience: float = 40.0) -> None:
    """Return once the node's status is as `true` says it."""
    deadline = asyncio.get_running_loop().time() + patience
    status: dict[str, Any] = {}
    while True:
        try:
            status = (await asking.http.get("/status", timeout=3.0)).json()
            if true(status):
                return
        except (httpx.HTTPError, ValueError):
            pass
        assert asyncio.get_running_loop().time() < deadline, status
        await asyncio.sleep(0.1)
