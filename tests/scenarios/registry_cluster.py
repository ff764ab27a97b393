"""A registry of three nodes over a three-member etcd, with proxies that can cut every connection between them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from adsum.core.nodes.sharding import SHARDS
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from tests.scenarios.processes import ADSUM_COMMAND, JsonApi, ScenarioProcess, ScenarioSandbox
from tests.support import etcd_process
from tests.support.etcd_process import EtcdProcess
from tests.support.tcp_proxy import TcpProxy

NODES = 3


class ClusterNode(ScenarioProcess):
    """One node of a registry over etcd."""

    def __init__(self, folder: Path, number: int, port: int, xds: int, store: str, advertised: int) -> None:
        self.url, self.xds = f"http://127.0.0.1:{port}", f"127.0.0.1:{xds}"
        argv = [*ADSUM_COMMAND, "serve", "--node", f"n{number}", "--listen", f"127.0.0.1:{port}", "--xds", self.xds]
        argv += ["--store", store, "--advertise", f"http://127.0.0.1:{advertised}"]
        super().__init__(f"n{number}", argv, folder)
        self.number = number


class RegistryCluster:
    """The nodes, the members of etcd, and proxies: from each node to each member, and from other nodes to each node."""

    def __init__(self, sandbox: ScenarioSandbox, members: Sequence[EtcdProcess]) -> None:
        self.sandbox = sandbox
        self.members = members
        self.etcd_wires: list[list[TcpProxy]] = []
        self.node_wires: list[TcpProxy] = []
        self.nodes: list[ClusterNode] = []
        self._ports = [(sandbox.port(), sandbox.port()) for _ in range(NODES)]

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
        return ClusterNode(self.sandbox.folder, number, *self._ports[number], store, self.node_wires[number].port)

    async def restart_node(self, number: int) -> None:
        """Starts a killed node again."""
        self.nodes[number] = self._node(number)
        await self.wait_until_ready(number)

    async def wait_until_ready(self, number: int) -> None:
        async with JsonApi(self.nodes[number].url) as api:
            await wait_for_status(api, lambda status: status["ready"] and status.get("age", 0.0) < 3.0)

    async def wait_until_balanced(self, nodes: int) -> None:
        """Returns once all running nodes report that `nodes` nodes share all services."""
        for node in self.nodes:
            if node.process.poll() is None:
                async with JsonApi(node.url) as api:
                    await wait_for_status(api, lambda status: _is_balanced(status, nodes))

    async def leader(self) -> EtcdProcess:
        """Returns the leading member of etcd."""
        for member in self.members:
            client = EtcdClient(EtcdAddress.parse(member.url), Random())
            try:
                state = await client.status()
            finally:
                await client.close()
            if state.leader == state.header.member:
                return member
        raise AssertionError("no member leads")

    async def close(self) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.send_signal(signal.SIGCONT)
            node.kill()
        for wire in (*self.node_wires, *(wire for wires in self.etcd_wires for wire in wires)):
            await wire.close()


@asynccontextmanager
async def running_cluster(sandbox: ScenarioSandbox) -> AsyncIterator[RegistryCluster]:
    """Runs a cluster whose nodes know one another."""
    async with AsyncExitStack() as stack:
        members = stack.enter_context(etcd_process.etcd_cluster(sandbox.folder))
        found = RegistryCluster(sandbox, members)
        stack.push_async_callback(found.close)
        await found.start()
        yield found


def _is_balanced(status: dict[str, Any], nodes: int) -> bool:
    shards = [status.get("shards", 0), *(peer["shards"] for peer in status.get("peers", []))]
    return len(shards) == nodes and sum(shards) == SHARDS and all(shards)


async def wait_for_status(api: JsonApi, condition: Callable[[dict[str, Any]], bool], timeout: float = 40.0) -> None:
    """Returns once `condition` is true of the node's status."""
    deadline = asyncio.get_running_loop().time() + timeout
    status: dict[str, Any] = {}
    while True:
        try:
            status = (await api.http.get("/status", timeout=3.0)).json()
            if condition(status):
                return
        except (httpx.HTTPError, ValueError):
            pass
        assert asyncio.get_running_loop().time() < deadline, status
        await asyncio.sleep(0.1)
