"""A secure registry on hosts of a private network: one etcd, nodes, and whatever else joins, by the real commands."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.scenarios.processes import ADSUM_COMMAND, ScenarioProcess, ScenarioSandbox
from tests.support.network_namespaces import NetworkHost, PrivateNetwork
from tests.support.programs import need

PORT: Final = 23786
XDS_PORT: Final = 23787
ETCD_PORT: Final = 2379


class SecureHosts:
    """The hosts, with an etcd on the first one. Commands run as on real hosts: without an option that names secrets."""

    def __init__(self, sandbox: ScenarioSandbox, network: PrivateNetwork, *names: str) -> None:
        self._etcd_program = str(need("etcd"))
        self.sandbox = sandbox
        self.network = network
        self.hosts = [network.add_host(name) for name in names]
        self._pipes = 0

    @property
    def store(self) -> str:
        return f"etcd://{self.hosts[0].address}:{ETCD_PORT}"

    async def start_etcd(self) -> None:
        """Starts an etcd on the first host."""
        client, peer = (f"http://{self.hosts[0].address}:{port}" for port in (ETCD_PORT, ETCD_PORT + 1))
        argv = [self._etcd_program, "--data-dir", str(self.sandbox.folder / "etcd"), "--name", "m1"]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"m1={peer}"]
        etcd = self.program(self.hosts[0], "etcd", *argv)
        await etcd.wait_for_output("serving insecure client requests")

    def program(self, host: NetworkHost, name: str, *argv: str, **environ: str) -> ScenarioProcess:
        """Starts a program on a host."""
        return self.sandbox.program(f"{host.name}-{name}", *host.command(*argv), **{**host.environ, **environ})

    def adsum(self, host: NetworkHost, *argv: str, **environ: str) -> ScenarioProcess:
        """Starts a command of Adsum on a host."""
        return self.program(host, argv[0], *ADSUM_COMMAND, *argv, **environ)

    async def run(self, host: NetworkHost, *argv: str, code: int = 0, **environ: str) -> ScenarioProcess:
        """Runs a command of Adsum on a host. Fails if it ends with another exit code."""
        command = self.adsum(host, *argv, **environ)
        assert await command.wait() == code, f"{argv}: {command.stdout}\n{command.stderr}"
        return command

    async def start_node(self, host: NetworkHost, *options: str) -> ScenarioProcess:
        """Starts a node, and returns once it listens."""
        argv = ("serve", "--secure", "--listen", f"0.0.0.0:{PORT}", "--xds", f"0.0.0.0:{XDS_PORT}")
        node = self.adsum(host, *argv, "--store", self.store, *options)
        await node.wait_for_output("listens on")
        return node

    async def invite(self, host: NetworkHost, *options: str) -> Path:
        """Has a host with admin rights print a join line. Returns the file with it."""
        command = await self.run(host, "token", "invite", *options)
        line = self.sandbox.folder / f"line{self._pipes}"
        self._pipes += 1
        line.touch(mode=0o600)
        line.write_text(command.stdout)
        return line

    async def join(self, host: NetworkHost, line: Path, *options: str, code: int = 0) -> ScenarioProcess:
        """Joins a host by the line in a file, through a pipe."""
        argv = " ".join([*ADSUM_COMMAND, "join", *options])
        command = self.program(host, "join", "sh", "-c", f"cat {line} | {argv}")
        assert await command.wait() == code, f"{command.stdout}\n{command.stderr}"
        return command

    async def wait_for_shares(self, host: NetworkHost, nodes: int) -> None:
        """Returns once that many nodes share the services, as a host with admin rights sees it."""

        async def shares() -> int:
            return (await self.run(host, "status")).stdout.count("%")

        for _ in range(100):
            if await shares() == nodes:
                return
        raise AssertionError((await self.run(host, "status")).stdout)
