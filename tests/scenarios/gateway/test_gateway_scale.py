"""The gateway and gRPC reach five hundred services of ten instances while instances and the registry come and go."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from tests.scenarios.gateway_load import GatewayLoad
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import JsonApi, ScenarioProcess, ScenarioSandbox, wait_until

INSTANCES_PER_SERVICE = 10
"""Instances of a service. All services share the same instances, under their own names."""
PLAIN = [f"s{n:03}" for n in range(450)]
GRPC = [f"g{n:02}" for n in range(50)]
SAMPLE, GRPC_SAMPLE = PLAIN[::9], GRPC[::10]
"""The services that are called."""
MAX_CONNECTIONS = 16


class ScaleCatalog:
    """The catalog of the test: instance `iN` of a service is at the N-th of the ports of its kind."""

    def __init__(self, sandbox: ScenarioSandbox, api: JsonApi, plain: list[int], grpc: list[int]) -> None:
        self._sandbox = sandbox
        self._api = api
        self._ports = {"s": plain, "g": grpc}

    async def move(self, service: str, old: int, new: int) -> None:
        """Replaces one instance by another."""
        await self._api.delete(f"/services/{service}/instances/i{old}")
        await self._api.put(f"/services/{service}/instances/i{new}", **self._registration(service, new))

    async def fill(self, services: list[str]) -> None:
        """Registers all instances of these services over a few raw connections, since a full HTTP client takes long for
        thousands.
        """
        wanted = iter([(service, number) for service in services for number in range(INSTANCES_PER_SERVICE)])
        await asyncio.gather(*(self._put(wanted) for _ in range(MAX_CONNECTIONS)))

    async def _put(self, wanted: Iterator[tuple[str, int]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._sandbox.node_port)
        for service, number in wanted:
            body = json.dumps(self._registration(service, number))
            head = f"PUT /api/v1/services/{service}/instances/i{number} HTTP/1.1\r\nhost: localhost\r\n"
            writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            response = await reader.readuntil(b"\r\n\r\n")
            assert response.startswith(b"HTTP/1.1 201"), response
            length = next(line for line in response.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()
        await writer.wait_closed()

    def _registration(self, service: str, number: int) -> dict[str, object]:
        scheme = "grpc" if service in GRPC else "http"
        return {"port": self._ports[service[0]][number], "scheme": scheme, "address": "127.0.0.1", "ttl": None}


class GrpcCallerOutput:
    """The output of a gRPC caller, read as it comes."""

    def __init__(self, caller: ScenarioProcess) -> None:
        self.failures: list[str] = []
        self._caller = caller
        self._line_count = 0
        self._last_line: dict[str, int] = {}
        """The number of the latest line with that text."""

    async def wait_for_answer_by(self, service: str, number: int) -> None:
        """Returns once a call after now was answered by that instance."""
        seen, text = self._read_lines(), f"{service} {number}"
        await wait_until(
            lambda: self._read_lines() > seen < self._last_line.get(text, 0), lambda: (text, self.failures[:3])
        )

    async def wait_for_rounds(self, count: int) -> None:
        """Returns once every service was called `count` more times."""
        target = self._read_lines() + (count + 1) * len(GRPC_SAMPLE)
        await wait_until(lambda: self._read_lines() > target, lambda: (self.failures[:3], self._caller.stderr))

    def _read_lines(self) -> int:
        """Reads the new lines and returns their number in all."""
        lines = self._caller.stdout.split("\n")[:-1]
        for number, line in enumerate(lines[self._line_count :], self._line_count + 1):
            self._last_line[line] = number
            if "failed" in line:
                self.failures.append(line)
        self._line_count = len(lines)
        return self._line_count


@pytest.mark.long
async def test_all_services_are_reached_while_instances_change_and_the_registry_is_killed(
    gateway_load: GatewayLoad,
) -> None:
    node = await gateway_load.start_registry()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(gateway_load.sandbox.url))
        plain = [
            await stack.enter_async_context(running_instance(str(number)))
            for number in range(INSTANCES_PER_SERVICE + 1)
        ]
        servers = gateway_load.sandbox.run(
            "servers", "-m", "tests.scenarios.many_grpc_services", "serve", str(INSTANCES_PER_SERVICE + 1)
        )
        await wait_until(lambda: servers.stdout.count("\n") == INSTANCES_PER_SERVICE + 1, lambda: servers.stderr)
        catalog = ScaleCatalog(
            gateway_load.sandbox, api, [server.port for server in plain], [int(line) for line in servers.stdout.split()]
        )
        await catalog.fill(PLAIN + GRPC)
        await gateway_load.start_gateway()
        program = ("-m", "tests.scenarios.many_grpc_services", "call", ",".join(GRPC_SAMPLE))
        grpc_output = GrpcCallerOutput(gateway_load.sandbox.run("caller", *program, ADSUM_GRPC_XDS=gateway_load.xds))
        for service in PLAIN:
            await gateway_load.wait_for_answer(f"/{service}/")
        async with gateway_load.load(*(f"/{service}/" for service in SAMPLE)):
            await grpc_output.wait_for_rounds(2)

            async def change(*services: str) -> None:
                """In each service, replaces an instance and waits until callers reach the new one."""
                for service in services:
                    await catalog.move(service, 0, INSTANCES_PER_SERVICE)
                    await (
                        grpc_output.wait_for_answer_by(service, INSTANCES_PER_SERVICE)
                        if service in GRPC
                        else gateway_load.wait_for_answer(f"/{service}/", str(INSTANCES_PER_SERVICE))
                    )

            async def keep_calling() -> None:
                seen = gateway_load.answered.total()
                await wait_until(
                    lambda: gateway_load.answered.total() > seen + 2 * len(SAMPLE), lambda: gateway_load.failures[:3]
                )
                await grpc_output.wait_for_rounds(2)

            await change(*SAMPLE[:10], *GRPC_SAMPLE[:2])
            await node.stop(signal.SIGKILL)
            await keep_calling()
            node = await gateway_load.start_registry()
            await change(*SAMPLE[10:15], *GRPC_SAMPLE[2:3])
            await node.stop(signal.SIGKILL)
            await gateway_load.start_registry("memory:")
            # Instances that are not back within `SETTLING_TIME` are removed, so those that are called come back first.
            await asyncio.gather(keep_calling(), catalog.fill([*dict.fromkeys((*GRPC, *SAMPLE, *PLAIN))]))
            await change(*SAMPLE[15:20], *GRPC_SAMPLE[3:5])
            await keep_calling()
        assert gateway_load.failures == []
        assert grpc_output.failures == []
        assert {str(number) for number in range(INSTANCES_PER_SERVICE + 1)} <= gateway_load.answered.keys()
