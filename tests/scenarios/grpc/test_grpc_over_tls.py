"""gRPC clients in four languages on a host that has joined a secure registry with one line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.scenarios.grpc.languages import CALLERS
from tests.scenarios.processes import ADSUM_COMMAND, ScenarioProcess, ScenarioSandbox, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.xdist_group("languages")]

NAMES = "tests.integrations.programs.grpc_programs"
SAMPLE_CALLS = 20
"""Calls that show which servers are called."""


class SecureNames:
    """A secure registry, a host that has joined it, and servers of the service `names` there."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = f"127.0.0.1:{sandbox.port()}"
        self.data = sandbox.folder / "data"
        self.operator = self.data / "security" / "operator"
        self.joined = sandbox.folder / "joined"

    async def start_registry(self) -> ScenarioProcess:
        return await self.sandbox.start_registry("", "--xds", self.xds, "--secure", "--data", str(self.data))

    async def adsum(self, credentials: Path, *argv: str) -> str:
        """Runs a command with the credentials in a folder. Returns its standard output."""
        child = self.sandbox.program(argv[0], *ADSUM_COMMAND, *argv, ADSUM_CREDENTIALS=str(credentials))
        assert await child.wait() == 0, child.stderr
        return child.stdout

    async def join(self) -> None:
        line = self.sandbox.folder / "line"
        line.touch(mode=0o600)
        line.write_text(await self.adsum(self.operator, "token", "invite", "--for", "client"))
        await self.adsum(self.joined, "join", str(line), "--name", "web1")

    def program(self, name: str, *argv: str, **environ: str) -> ScenarioProcess:
        return self.sandbox.program(name, *argv, ADSUM_CREDENTIALS=str(self.joined), **environ)

    async def serve(self, name: str) -> ScenarioProcess:
        child = self.program(name, sys.executable, "-m", NAMES, "sync-serve", name)
        await child.wait_for_output("serving")
        return child


async def wait_until_calls(child: ScenarioProcess, *names: str) -> None:
    """Returns when exactly these servers are called."""

    def latest() -> set[str]:
        return set(child.stdout.rpartition("\n")[0].splitlines()[-SAMPLE_CALLS:])

    await wait_until(lambda: latest() == set(names), lambda: f"{child.stdout[-800:]}\n{child.stderr[-3000:]}")


@pytest.fixture
async def names(sandbox: ScenarioSandbox) -> SecureNames:
    secure = SecureNames(sandbox)
    await secure.start_registry()
    await secure.join()
    return secure


async def test_the_bootstrap_of_a_joined_host_names_its_files_and_has_no_secret(names: SecureNames) -> None:
    text = await names.adsum(names.joined, "grpc-bootstrap")
    (server,) = json.loads(text)["xds_servers"]
    assert server["server_uri"] == names.xds
    (credentials,) = server["channel_creds"]
    assert credentials["type"] == "tls"
    files = {key: Path(value).name for key, value in credentials["config"].items() if key.endswith("_file")}
    assert files == {
        "ca_certificate_file": "authority.pem",
        "certificate_file": "client.pem",
        "private_key_file": "client.key",
    }
    assert (names.joined / "token").read_text().strip() not in text


async def test_python_programs_on_a_joined_host_need_no_setting(names: SecureNames) -> None:
    await names.serve("a")
    callers = [names.program(kind, sys.executable, "-m", NAMES, kind, "names") for kind in ("call", "sync-call")]
    await asyncio.gather(*(wait_until_calls(caller, "a") for caller in callers))
    b = await names.serve("b")
    await asyncio.gather(*(wait_until_calls(caller, "a", "b") for caller in callers))
    assert await b.stop() in (0, 143)
    await asyncio.gather(*(wait_until_calls(caller, "a") for caller in callers))


async def test_on_the_host_of_the_registry_no_join_is_needed(names: SecureNames) -> None:
    await names.serve("a")
    caller = names.sandbox.program(
        "operator", sys.executable, "-m", NAMES, "sync-call", "names", ADSUM_CREDENTIALS=str(names.operator)
    )
    await wait_until_calls(caller, "a")


@pytest.mark.parametrize("language", CALLERS)
async def test_a_caller_in_each_language_follows_the_registry_over_tls(names: SecureNames, language: str) -> None:
    program = CALLERS[language]()
    await names.serve("a")
    bootstrap = names.sandbox.folder / "xds.json"
    bootstrap.write_text(await names.adsum(names.joined, "grpc-bootstrap"))
    caller = names.program(language, *program, "xds:///names", GRPC_XDS_BOOTSTRAP=str(bootstrap))
    await wait_until_calls(caller, "a")
    before = caller.stdout  # The first calls may come before the instance is passing.
    await names.serve("b")
    await wait_until_calls(caller, "a", "b")
    assert "failed" not in caller.stdout.removeprefix(before)


async def test_a_revoked_client_goes_on_calling_what_it_knows_and_learns_nothing_new(names: SecureNames) -> None:
    await names.serve("a")
    caller = names.program("call", sys.executable, "-m", NAMES, "sync-call", "names")
    await wait_until_calls(caller, "a")
    (name,) = [
        entry["name"]
        for entry in json.loads(await names.adsum(names.operator, "token", "ls", "--json"))["tokens"]
        if entry.get("role") == "client"
    ]
    await names.adsum(names.operator, "token", "revoke", name)
    later = names.program("later", sys.executable, "-m", NAMES, "sync-call", "names", ADSUM_GRPC_XDS=names.xds)
    await wait_until(lambda: "UNAVAILABLE" in later.stdout, lambda: later.stderr)
    await wait_until_calls(caller, "a")
