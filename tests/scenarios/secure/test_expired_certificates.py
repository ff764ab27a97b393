"""The day on which all certificates of a registry have expired, and the one command that mends it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import pytest

from adsum.core.access.tokens import TokenRole
from tests.scenarios.processes import ADSUM_COMMAND, ScenarioProcess, ScenarioSandbox, wait_until
from tests.scenarios.secure.short_lived import ShortLivedAuthority
from tests.support.etcd_process import EtcdProcess

LIFETIME: Final = 4.0
"""Seconds until all certificates expire. Nodes look at their files about once a second."""
MENDING: Final = 60.0
"""Seconds within which everybody has taken over the renewed certificates."""
NODE: Final = """
from adsum.node_security import node_security
node_security.RENEWAL_RETRY = 3.0  # So that the test takes less time.
from adsum.__main__ import main
main()
"""
WATCHER: Final = """
import asyncio
from adsum.client.native import request_sender
request_sender.TRUST_PAUSE = 3.0
from tests.scenarios.secure.watching_client import main
asyncio.run(main())
"""


class Cluster:
    """Two nodes over etcd on this host. The first one has the key of the authority."""

    def __init__(self, sandbox: ScenarioSandbox, etcd: EtcdProcess) -> None:
        self.sandbox = sandbox
        self.store = etcd.url
        self.ports = [sandbox.port(), sandbox.port()]
        self.urls = [f"https://127.0.0.1:{port}" for port in self.ports]
        self.nodes: list[ScenarioProcess] = []

    def folder(self, name: str) -> Path:
        return self.sandbox.folder / name

    @property
    def operator(self) -> dict[str, str]:
        """The variable by which commands act as the operator on the host of the first node."""
        return {"ADSUM_CREDENTIALS": str(self.folder("n1/security/operator"))}

    @property
    def client(self) -> dict[str, str]:
        """The variable by which programs are the client."""
        return {"ADSUM_CREDENTIALS": str(self.folder("client"))}

    async def start_node(self, number: int) -> ScenarioProcess:
        name = f"n{number + 1}"
        argv = ["serve", "--secure", "--node", name, "--data", str(self.folder(name)), "--store", self.store]
        argv += ["--listen", f"127.0.0.1:{self.ports[number]}", "--xds", "off"]
        command = ADSUM_COMMAND if number == 0 else (sys.executable, "-c", NODE)
        node = self.sandbox.program(name, *command, *argv)
        await node.wait_for_output("listens on")
        return node

    def adsum(self, environ: dict[str, str], *argv: str) -> ScenarioProcess:
        return self.sandbox.program(argv[0], *ADSUM_COMMAND, *argv, **environ)

    async def run(self, environ: dict[str, str], *argv: str, code: int = 0) -> ScenarioProcess:
        command = self.adsum(environ, *argv)
        assert await command.wait() == code, f"{argv}: {command.stdout}\n{command.stderr}"
        return command

    async def join(self, role: str, *options: str) -> None:
        line = self.folder(f"{role}-line")
        line.write_text((await self.run(self.operator, "token", "invite", "--for", role)).stdout)
        await self.run({"HOME": str(self.sandbox.folder)}, "join", str(line), *options)

    async def start(self) -> None:
        self.nodes.append(await self.start_node(0))
        await self.join("node", "--name", "n2", "--data", str(self.folder("n2")))
        self.nodes.append(await self.start_node(1))
        await self.join("client", "--name", "web", "--folder", str(self.folder("client")))

    def expire(self) -> None:
        """Replaces all certificates by others that expire soon."""
        authority = ShortLivedAuthority(self.folder("n1/security"), LIFETIME)
        for name, certificate, role in (
            ("n1/security", "node", TokenRole.NODE),
            ("n2/security", "node", TokenRole.NODE),
            ("client", "client", TokenRole.CLIENT),
        ):
            authority.replace(self.folder(name), certificate, role)

    def problem(self, number: int) -> str:
        """Returns why a new connection to a node fails; "" if it does not."""
        context = ssl.create_default_context(cafile=str(self.folder("client/authority.pem")))
        try:
            with socket.create_connection(("127.0.0.1", self.ports[number]), 5.0) as connection:
                context.wrap_socket(connection, server_hostname="127.0.0.1").close()
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        return ""

    async def wait_for_problem(self, problem: str) -> None:
        for number in range(2):
            await wait_until(lambda number=number: self.problem(number) == problem, lambda: self.describe(), MENDING)  # type: ignore[misc]

    def describe(self) -> str:
        return "\n".join(node.stderr[-2000:] for node in self.nodes)

    async def register(self, id: str) -> None:
        """Registers an instance by a connection that verifies nothing."""
        token = self.folder("client/token").read_text().strip()
        path = f"{self.urls[0]}/api/v1/services/orders/instances/{id}"
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(verify=False, trust_env=False, headers=headers, timeout=20.0) as http:
            (await http.put(path, json={"port": 80, "ttl": 600})).raise_for_status()

    def watcher(self) -> ScenarioProcess:
        """Starts a consumer at the second node."""
        return self.sandbox.program(
            "watcher", sys.executable, "-c", WATCHER, "orders", **self.client, ADSUM_URL=self.urls[1]
        )


@pytest.mark.long
async def test_one_command_mends_a_registry_whose_certificates_have_all_expired(
    sandbox: ScenarioSandbox, tmp_path: Path
) -> None:
    with EtcdProcess(tmp_path) as etcd:
        cluster = Cluster(sandbox, etcd)
        await cluster.start()
        run = ("run", "--service", "users", "--id", "u1", "--port", "0", "--ttl", "6s", "--")
        registrar = cluster.adsum(cluster.client, *run, "sh", "-c", f"exec {sys.executable} -m http.server $PORT")
        await cluster.register("o1")
        watcher = cluster.watcher()
        await watcher.wait_for_output("view: o1=passing (1)")
        await registrar.wait_for_output("registered")
        cluster.expire()
        await cluster.wait_for_problem("certificate has expired")

        # Open streams go on.
        await cluster.register("o2")
        await watcher.wait_for_output("o2=passing")
        # New connections fail with one sentence.
        refused = await cluster.run(cluster.client, "ls", code=69)
        assert "expired" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        # A node starts with its expired certificate, and the consumer whose stream it ended keeps its view.
        cluster.nodes[1].kill()
        cluster.nodes[1] = await cluster.start_node(1)
        await watcher.wait_for_output("the view ages from now on")
        await cluster.register("o3")
        began = time.monotonic()
        await wait_until(lambda: cluster.nodes[1].stderr.count("can't be renewed") == 1, cluster.describe)
        assert watcher.stdout.count("view: ") == 2, "the view stays as it was"
        assert watcher.process.poll() is None

        await cluster.run({}, "init", "--renew", "--node", "n1", "--data", str(cluster.folder("n1")))
        # The client's copy of the authority's certificate has expired: the registry has another one of the same key.
        listed = await _until_it_works(cluster, "ls")
        assert "orders" in listed.stdout
        await cluster.wait_for_problem("")
        await watcher.wait_for_output("o1=passing o2=passing o3=passing (3)")
        assert "view:  " not in watcher.stdout
        await _until_it_works(cluster, "resolve", "users")
        assert registrar.process.poll() is None
        drain = await cluster.run(cluster.operator, "drain", "orders/o1")
        assert "no cooperating consumer calls it any more" in drain.stderr
        # The run of n2 that was killed may still be named. Its present run answers.
        silent = [line for line in drain.stderr.splitlines() if "this node does not report" in line]
        assert all("it left" in line for line in silent), drain.stderr
        assert "o1=draining" in watcher.stdout
        assert time.monotonic() - began < MENDING
        attempts = cluster.nodes[1].stderr.count("can't be renewed")
        assert attempts == 1, "an outage is logged once"


async def _until_it_works(cluster: Cluster, *argv: str) -> ScenarioProcess:
    """Runs a command of the client again and again until it succeeds."""
    async with asyncio.timeout(MENDING):
        while True:
            with contextlib.suppress(AssertionError):
                return await cluster.run(cluster.client, *argv)
