"""gRPC clients in four languages use the registry with only the printed bootstrap, and no call fails."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import pytest

from tests.scenarios.grpc.languages import CALLERS
from tests.scenarios.processes import ADSUM_COMMAND, JsonApi, ScenarioProcess, ScenarioSandbox, wait_until
from tests.support.etcd_process import EtcdProcess

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("languages")]
"""Seconds; the first test of a language on a machine waits for packages and a build."""

NAMES = "tests.integrations.programs.grpc_programs"
SAMPLE_CALLS = 30
"""Calls that show which servers are called."""


class LanguageCaller:
    """A program in one language that calls `xds:///names` without a pause."""

    def __init__(self, language: str, child: ScenarioProcess) -> None:
        self.language = language
        self.child = child

    @property
    def answers(self) -> Counter[str]:
        return Counter(line for line in self._lines if not line.startswith("failed"))

    @property
    def failures(self) -> list[str]:
        return [line for line in self._lines if line.startswith("failed")]

    @property
    def _lines(self) -> list[str]:
        whole, _, _ = self.child.stdout.rpartition("\n")
        return whole.splitlines()

    async def wait_until_calls(self, *names: str) -> None:
        """Returns when exactly these servers are called."""
        await wait_until(lambda: set(self._lines[-SAMPLE_CALLS:]) == set(names), self.description)

    async def wait_for_more_calls(self) -> None:
        """Returns when `SAMPLE_CALLS` more calls have been answered."""
        enough = self.answers.total() + SAMPLE_CALLS
        await wait_until(lambda: self.answers.total() >= enough, self.description)

    def description(self) -> str:
        return f"{self.language}: {self.child.stdout[-1500:]}\n{self.child.stderr[-3000:]}"


class LanguageRegistry:
    """A registry, and servers that register with it."""

    def __init__(self, sandbox: ScenarioSandbox) -> None:
        self.sandbox = sandbox
        self.xds = f"127.0.0.1:{sandbox.port()}"

    async def start_registry(self) -> ScenarioProcess:
        return await self.sandbox.start_registry("", "--xds", self.xds)

    async def serve(self, api: JsonApi, name: str) -> ScenarioProcess:
        child = self.sandbox.run(name, "-m", NAMES, "sync-serve", name)
        await api.wait_for_statuses("names", lambda statuses: statuses.get(name) == "passing")
        return child

    async def caller(self, language: str, program: tuple[str, ...], *options: str) -> LanguageCaller:
        """Starts a caller with the bootstrap that `adsum grpc-bootstrap` prints with these options."""
        printed = self.sandbox.adsum("grpc-bootstrap", *options)
        assert await printed.wait() == 0, printed.stderr
        bootstrap = self.sandbox.folder / f"{language}.json"
        bootstrap.write_text(printed.stdout)
        child = self.sandbox.program(language, *program, "xds:///names", GRPC_XDS_BOOTSTRAP=str(bootstrap))
        return LanguageCaller(language, child)


async def wait_until_all_call(callers: Sequence[LanguageCaller], *names: str) -> None:
    """Returns when each caller calls exactly these servers."""
    await asyncio.gather(*(caller.wait_until_calls(*names) for caller in callers))


def failures(callers: Sequence[LanguageCaller]) -> dict[str, list[str]]:
    """Returns the calls that failed, by language."""
    return {caller.language: caller.failures for caller in callers if caller.failures}


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[str, ...]]:
    """Returns the command of each language's caller, if its toolchain is installed."""
    found = {}
    for language in CALLERS:
        with suppress(pytest.skip.Exception):
            found[language] = CALLERS[language]()
    return found


@pytest.mark.parametrize("language", CALLERS)
def test_a_caller_in_each_language_is_built(language: str) -> None:
    """Builds the caller; without the toolchain the test is skipped, and the scenarios run without that language."""
    assert CALLERS[language]()


async def test_no_call_fails_while_instances_and_the_registry_restart(
    sandbox: ScenarioSandbox, programs: dict[str, tuple[str, ...]]
) -> None:
    names = LanguageRegistry(sandbox)
    node = await names.start_registry()
    async with JsonApi(sandbox.url) as api:
        a, b = await asyncio.gather(names.serve(api, "a"), names.serve(api, "b"))
        dead = f"127.0.0.1:{sandbox.port()}"
        # Node.js uses only the first node; the others also work with one that is down.
        callers = [
            await names.caller(language, program, "--xds", names.xds if language == "node" else f"{dead},{names.xds}")
            for language, program in programs.items()
        ]
        await wait_until_all_call(callers, "a", "b")
        await names.serve(api, "c")
        await wait_until_all_call(callers, "a", "b", "c")
        assert await a.stop() in (0, 143), a.stderr
        drained = [caller.answers["a"] for caller in callers]
        await wait_until_all_call(callers, "b", "c")
        assert [caller.answers["a"] for caller in callers] == drained, "a drained server is not called"
        assert failures(callers) == {}
        await b.stop(signal.SIGKILL)
        await wait_until_all_call(callers, "c")
        lost = failures(callers)
        assert all(len(failed) == 1 for failed in lost.values()), (
            f"more calls failed than the one in flight at the killed server: {lost}"
        )
        await node.stop(signal.SIGKILL)
        await asyncio.gather(*(caller.wait_for_more_calls() for caller in callers))
        await names.start_registry()
        await names.serve(api, "d")
        await wait_until_all_call(callers, "c", "d")
        assert failures(callers) == lost


async def test_a_client_of_joined_nodes_moves_to_another_node_when_its_own_is_killed(
    sandbox: ScenarioSandbox, programs: dict[str, tuple[str, ...]]
) -> None:
    ports = [(sandbox.node_port, sandbox.port()), (sandbox.port(), sandbox.port())]
    with EtcdProcess(sandbox.folder) as etcd:
        nodes = [
            sandbox.program(
                f"node{number}", *ADSUM_COMMAND, "serve", "--node", f"n{number}", "--store", etcd.url,
                "--listen", f"127.0.0.1:{port}", "--xds", f"127.0.0.1:{xds}",
            )
            for number, (port, xds) in enumerate(ports)
        ]  # fmt: skip
        for node in nodes:
            await node.wait_for_output("listens on")
        names = LanguageRegistry(sandbox)
        sandbox.url = ",".join(f"http://127.0.0.1:{port}" for port, _ in ports)
        joined = ("--joined", "--xds", ",".join(f"127.0.0.1:{xds}" for _, xds in ports))
        async with JsonApi(f"http://127.0.0.1:{ports[1][0]}") as api:
            await names.serve(api, "a")
            callers = [
                await names.caller(language, program, *joined)
                for language, program in programs.items()
                if language in ("python", "node")
            ]
            await wait_until_all_call(callers, "a")
            await nodes[0].stop(signal.SIGKILL)
            await names.serve(api, "b")
            await wait_until_all_call(callers, "a", "b")
            assert failures(callers) == {}
