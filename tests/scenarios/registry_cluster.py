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

from adsum.etcd.address import Place as EtcdPlace
from adsum.etcd.client import Etcd as Connection
from tests.scenarios.processes import ADSUM, Asking, Child, Place
from tests.support import etcd_process
from tests.support.etcd_process import Etcd
from tests.support.tcp_proxy import Wire

NODES = 3


class Node(Child):
    """One of several nodes of a registry, over etcd."""

    def __init__(self, folder: Path, number: int, port: int, xds: int, store: str, advertised: int) -> None:
        self.url, self.xds = f"http://127.0.0.1:{port}", f"127.0.0.1:{xds}"
        argv = [*ADSUM, "serve", "--node", f"n{number}", "--listen", f"127.0.0.1:{port}", "--xds", self.xds]
        argv += ["--store", store, "--advertise", f"http://127.0.0.1:{advertised}"]
        super().__init__(f"n{number}", argv, folder)
        self.number = number


class Cluster:
    """The nodes, the members of etcd, and the wires from each node to each member, and from the others to each node."""

    def __init__(self, place: Place, members: Sequence[Etcd]) -> None:
        self.place = place
        self.members = members
        self.wires: list[list[Wire]] = []
        self.between: list[Wire] = []
        self.nodes: list[Node] = []
        self._ports = [(place.port(), place.port()) for _ in range(NODES)]

    @property
    def urls(self) -> str:
        return ",".join(f"http://127.0.0.1:{port}" for port, _ in self._ports)

    @property
    def xds(self) -> str:
        return ",".join(f"127.0.0.1:{xds}" for _, xds in self._ports)

    async def open(self) -> None:
        self.wires = [[await Wire(member.port).open() for member in self.members] for _ in range(NODES)]
        self.between = [await Wire(port).open() for port, _ in self._ports]
        self.nodes = [self._node(number) for number in range(NODES)]
        for node in self.nodes:
            await node.said("listens on")
        await self.shared(NODES)

    def _node(self, number: int) -> Node:
        store = "etcd://" + ",".join(f"127.0.0.1:{wire.port}" for wire in self.wires[number])
        return Node(self.place.folder, number, *self._ports[number], store, self.between[number].port)

    async def start(self, number: int) -> None:
        """A node that was killed comes back."""
        self.nodes[number] = self._node(number)
        await self.ready(number)

    async def ready(self, number: int) -> None:
        async with Asking(self.nodes[number].url) as asking:
            await told(asking, lambda status: status["ready"] and status.get("age", 0.0) < 3.0)

    async def shared(self, nodes: int) -> None:
        """Return when everything is kept by that many nodes, each of which says the same."""
        for node in self.nodes:
            if node.process.poll() is None:
                async with Asking(node.url) as asking:
                    await told(asking, lambda status: _shared(status, nodes))

    async def leader(self) -> Etcd:
        """The member of etcd that leads."""
        for member in self.members:
            connection = Connection(EtcdPlace.parse(member.url), Random())
            try:
                state = await connection.state()
            finally:
                await connection.close()
            if state.leader == state.header.member:
                return member
        raise AssertionError("nobody leads")

    async def close(self) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.tell(signal.SIGCONT)
            node.clear()
        for wire in (*self.between, *(wire for wires in self.wires for wire in wires)):
            await wire.close()


@asynccontextmanager
async def cluster(place: Place) -> AsyncIterator[Cluster]:
    """All up, and the nodes know one another."""
    async with AsyncExitStack() as stack:
        members = stack.enter_context(etcd_process.cluster(place.folder))
        found = Cluster(place, members)
        stack.push_async_callback(found.close)
        await found.open()
        yield found


def _shared(status: dict[str, Any], nodes: int) -> bool:
    shares = [status.get("share", 0), *(peer["share"] for peer in status.get("peers", []))]
    return len(shares) == nodes and sum(shares) == 256 and all(shares)


async def told(asking: Asking, true: Callable[[dict[str, Any]], bool], patience: float = 40.0) -> None:
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
