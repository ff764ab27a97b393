"""The story of a newcomer: each kind of program joins a registry on a network with one copied line, and nobody else.

At the end every operation is refused for a host without credentials, and for a host whose token was revoked.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from adsum.dialects.native.api.operation_table import OPERATIONS
from tests.dialects.test_access_matrix import EXPECTED, OK
from tests.scenarios.processes import ScenarioProcess, ScenarioSandbox, wait_until
from tests.scenarios.secure.own_envoy import own_bootstrap
from tests.scenarios.secure.refused_operations import XDS_METHODS
from tests.scenarios.secure.secret_scanner import SecretScanner, secrets_of_hosts
from tests.scenarios.secure.secure_hosts import PORT, XDS_PORT, SecureHosts
from tests.support.network_namespaces import NetworkHost, PrivateNetwork
from tests.support.programs import need

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

LISTEN = "127.0.0.1:8080"
OWN_LISTEN = "127.0.0.1:10000"
CALL = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"
TTL = "60s"
"""The ttl of the instance. It is called after its token was revoked, which ends renewals: it must not have lapsed."""
INVITE = "join"
"""The operation whose secret is in its body: an invite that the registry does not know."""
COMMANDS = (
    ("ls",),
    ("watch", "orders"),
    ("whoami",),
    ("drain", "orders/o1"),
    ("register", "orders", "--id", "o2", "--port", "1", "--ttl", "none"),
    ("route", "add", "shop", "--path", "/shop", "--to", "orders"),
    ("token", "invite", "--for", "client"),
    ("join", "--renew"),
)
"""Commands, each of another kind."""


class Newcomer:
    """The hosts n1 and n2 (nodes), edge (gateway), web (everything of a client), and a stranger."""

    def __init__(self, sandbox: ScenarioSandbox, network: PrivateNetwork) -> None:
        self.envoy = str(need("envoy"))
        self.hosts = SecureHosts(sandbox, network, "n1", "n2", "edge", "web", "stranger")
        self.sandbox = sandbox
        self.first, self.second, self.edge, self.web, self.stranger = self.hosts.hosts
        self.lines: list[Path] = []
        self.nodes: list[ScenarioProcess] = []

    def credentials(self, host: NetworkHost) -> Path:
        return host.home / ".config/adsum/registry"

    async def join(self, host: NetworkHost, role: str) -> None:
        self.lines.append(await self.hosts.invite(self.first, "--for", role))
        joined = await self.hosts.join(host, self.lines[-1])
        assert "this host has joined the registry" in joined.stderr

    def python(self, host: NetworkHost, name: str, *argv: str, **environ: str) -> ScenarioProcess:
        return self.hosts.program(host, name, sys.executable, *argv, **environ)

    def scenario(self, host: NetworkHost, name: str, *argv: str, **environ: str) -> ScenarioProcess:
        return self.python(host, name, "-m", f"tests.scenarios.{name}", *argv, **environ)

    async def start_registry(self) -> None:
        await self.hosts.start_etcd()
        refused = await self.hosts.run(self.first, "serve", "--listen", f"0.0.0.0:{PORT}", code=78)
        assert "--secure" in refused.stderr
        assert "--insecure" in refused.stderr
        self.nodes.append(await self.hosts.start_node(self.first))
        await self.join(self.second, "node")
        self.nodes.append(await self.hosts.start_node(self.second))

    async def start_programs(self) -> None:
        """Starts what a newcomer has on the hosts that joined: each command is that of a host on loopback."""
        await asyncio.gather(self.join(self.edge, "gateway"), self.join(self.web, "client"))
        serve = ("run", "--service", "orders", "--id", "o1", "--port", "0", "--ttl", TTL, "--", "sh", "-c")
        self.run = self.hosts.adsum(self.web, *serve, f"exec {sys.executable} -m http.server $PORT")
        server = self.scenario(self.web, "secure.grpc_server", "names", "g1")
        await self.run.wait_for_output("registered")
        await server.wait_for_output("serving")
        self.consumer = self.scenario(self.web, "secure.watching_client", "orders")
        self.gateway = self.hosts.adsum(
            self.edge, "gateway", "--listen", LISTEN, "--concurrency", "1", "--access-log", "off"
        )
        bootstrap = self.sandbox.folder / "envoy.yaml"
        nodes = [(host.address, XDS_PORT) for host in (self.first, self.second)]
        bootstrap.write_text(own_bootstrap(OWN_LISTEN, nodes, self.credentials(self.web)))
        self.own_envoy = self.hosts.program(
            self.web, "envoy", self.envoy, "-c", str(bootstrap), "--use-dynamic-base-id", "--concurrency", "1"
        )
        xds = self.sandbox.folder / "xds.json"
        xds.write_text((await self.hosts.run(self.web, "grpc-bootstrap")).stdout)
        self.caller = self.scenario(self.web, "grpc.grpc_caller", "xds:///names", GRPC_XDS_BOOTSTRAP=str(xds))

    async def call(self, host: NetworkHost, listen: str) -> str:
        """Returns the status of a call of orders through an Envoy; the error if it failed."""
        call = self.python(host, "call", "-c", CALL, f"http://{listen}/orders/")
        await call.wait()
        return (call.stdout or call.stderr).strip().rpartition("\n")[2]

    async def wait_for_calls(self, host: NetworkHost, listen: str) -> None:
        async with asyncio.timeout(20.0):
            while await self.call(host, listen) != "200":
                pass

    async def scrape(self, host: NetworkHost, folder: Path, node: NetworkHost) -> ScenarioProcess:
        scraper = self.scenario(host, "secure.metrics_scraper", f"{node.address}:{PORT}", str(folder))
        await scraper.wait()
        return scraper

    async def try_everything(self, host: NetworkHost, folder: str) -> Mapping[str, tuple[str, str]]:
        """Returns the status and the text of each operation's response, at the first node."""
        node = [f"{self.first.address}:{port}" for port in (PORT, XDS_PORT)]
        tried = self.scenario(host, "secure.refused_operations", *node, folder)
        assert await tried.wait() == 0, tried.stderr
        found: Mapping[str, tuple[str, str]] = json.loads(tried.stdout)
        return found

    async def refusals(self) -> Mapping[tuple[str, str], float]:
        """Returns the refusals that both nodes counted, by operation and reason."""
        operator = self.first.home / ".local/share/adsum/security/operator"
        counts: dict[tuple[str, str], float] = {}
        for node in (self.first, self.second):
            text = (await self.scrape(self.first, operator, node)).stdout
            for operation, reason, count in re.findall(
                r'adsum_access_refused_total{operation="(\w+)",reason="([\w-]+)"} (\S+)', text
            ):
                counts[operation, reason] = counts.get((operation, reason), 0.0) + float(count)
        return counts

    async def catalog(self) -> object:
        """Returns the services, the instances of orders, the routes, and the names of the tokens."""
        found: list[object] = []
        for command in (("ls", "--json"), ("ls", "orders", "--json"), ("route", "ls", "--json")):
            listed = json.loads((await self.hosts.run(self.first, *command)).stdout)
            # The days on which tokens were used are in the catalog, and each new one has a revision.
            found.append({key: value for key, value in listed.items() if key != "revision"})
        tokens = (await self.hosts.run(self.first, "token", "ls")).stdout.splitlines()
        return [*found, [line.split()[0] for line in tokens]]


def assert_native(answers: Mapping[str, tuple[str, str]], caller: str) -> None:
    """Asserts that each operation answered as the access matrix says, and that a refusal says why."""
    for operation in OPERATIONS:
        status, text = answers[operation.name]
        wanted = 401 if operation.name == INVITE else EXPECTED[operation.action][caller]
        if wanted == OK:
            assert int(status) < 400, f"{operation.name}: {status} {text}"
            continue
        assert int(status) == wanted, f"{operation.name}: {status} {text}"
        if operation.method != "HEAD":
            problem = json.loads(text)
            assert problem["detail"], operation.name
            assert "10.77" not in text, f"{operation.name} reveals an address: {text}"


async def assert_commands(newcomer: Newcomer, host: NetworkHost, code: int, text: str, **environ: str) -> None:
    """Asserts that each command is refused with one sentence that says what to do."""

    async def try_one(command: tuple[str, ...]) -> None:
        refused = await newcomer.hosts.run(host, *command, code=code, **environ)
        assert text in refused.stderr, f"{command}: {refused.stderr}"
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert refused.stdout == "", command

    await asyncio.gather(*map(try_one, COMMANDS))


async def test_everything_joins_with_one_line_and_everyone_else_is_refused(
    private_network: PrivateNetwork, sandbox: ScenarioSandbox, tmp_path: Path
) -> None:
    newcomer = Newcomer(sandbox, private_network)
    hosts, web, edge, stranger = newcomer.hosts, newcomer.web, newcomer.edge, newcomer.stranger
    scanner = SecretScanner()
    await newcomer.start_registry()
    await newcomer.start_programs()

    # Everything works.
    await newcomer.consumer.wait_for_output("o1=passing (1)")
    await newcomer.gateway.wait_for_output("listens on")
    await newcomer.wait_for_calls(edge, LISTEN)
    await newcomer.wait_for_calls(web, OWN_LISTEN)
    await wait_until(lambda: newcomer.caller.stdout.count("g1\n") > 3, lambda: newcomer.caller.stdout)
    for node in (newcomer.first, newcomer.second):
        scraped = await newcomer.scrape(web, newcomer.credentials(web), node)
        assert "adsum_instances 2.0" in scraped.stdout, scraped.stderr
    history = await hosts.run(newcomer.first, "history", "orders")
    assert f"registered by web (as root@web, from {web.address})" in history.stdout
    before = await newcomer.catalog()

    # A host without credentials learns nothing and changes nothing.
    answers = await newcomer.try_everything(stranger, "none")
    assert_native(answers, "none")
    for method in XDS_METHODS:
        assert answers[method.rpartition("/")[2]][0] == "UNAVAILABLE", "the handshake needs a certificate"
    url = f"https://{newcomer.first.address}:{PORT}"
    refused = await hosts.run(stranger, "ls", code=69, ADSUM_URL=url)
    assert "join the registry with `adsum join`" in refused.stderr
    assert await newcomer.catalog() == before

    # A revoked token: every operation is refused, and traffic goes on.
    revoked = await hosts.run(newcomer.first, "token", "revoke", "web")
    assert "revoked" in revoked.stderr
    await wait_until(lambda: "gRPC config stream to registry closed: 16" in newcomer.own_envoy.stderr)
    assert await newcomer.call(edge, LISTEN) == "200"
    assert await newcomer.call(web, OWN_LISTEN) == "200"
    assert newcomer.caller.stdout.endswith("g1\n")
    answers = await newcomer.try_everything(web, str(newcomer.credentials(web)))
    assert_native(answers, "revoked")
    for method in XDS_METHODS:
        code, details = answers[method.rpartition("/")[2]]
        assert (code, details) == (
            "UNAUTHENTICATED",
            "the token of the client certificate was revoked: join the registry again",
        )
    await assert_commands(newcomer, web, 77, "`adsum join` with a new line of `adsum token invite`")
    assert (await newcomer.scrape(web, newcomer.credentials(web), newcomer.first)).process.returncode != 0
    await newcomer.run.wait_for_output("1 lease can't be renewed, trying again: the registry refused (401)")

    # Who did what.
    counts = await newcomer.refusals()
    for operation in OPERATIONS:
        if operation.name == INVITE:
            continue
        if EXPECTED[operation.action]["none"] == 401:
            assert counts.get((operation.name, "no-credentials")), operation.name
        if EXPECTED[operation.action]["revoked"] == 401:
            assert counts.get((operation.name, "wrong-credentials")), operation.name
    await newcomer.nodes[0].wait_for_output("refused connections to xDS: ")
    operator = newcomer.first.home / ".local/share/adsum/security/operator"
    metrics = await newcomer.scrape(newcomer.first, operator, newcomer.first)
    failed = re.search(r'adsum_connections_shed_total{\w+="tls_failed"} (\d+)', metrics.stdout)
    assert failed is not None
    assert int(failed[1]) > 0
    log = newcomer.nodes[0].stderr
    assert re.search(rf"refused \w+ to {stranger.address}: ", log)
    assert re.search(rf"refused \w+ to {web.address}: ", log)
    assert re.search(rf"token=web cause=withdrawn actor=admin@n1 .*peer=(127.0.0.1|{newcomer.first.address})", log)
    status = await hosts.run(newcomer.first, "status")
    assert "UNAUTHENTICATED" in status.stdout

    # One new line mends the host. Programs that run find the new token by themselves.
    await newcomer.join(web, "client")
    await hosts.run(web, "register", "orders", "--id", "o3", "--port", "1", "--ttl", "none")
    await newcomer.consumer.wait_for_output("o3=passing")

    seen = scanner.stop()
    secrets = secrets_of_hosts(tmp_path / "network", newcomer.lines)
    assert len(secrets) > 12, "nodes, gateway and client have secrets"
    assert scanner.count > 100
    for found, place in seen.items():
        assert not any(secret.encode() in found for secret in secrets), place
    logs = [file for file in sandbox.folder.iterdir() if file.suffix in (".out", ".err")]
    # The output of `adsum token invite` is what people copy.
    invites = [file for file in logs if file.name.endswith("-token.out")]
    assert len(invites) >= len(newcomer.lines)
    text = "".join(file.read_text() for file in logs if file not in invites)
    assert not [secret for secret in secrets if secret in text]
