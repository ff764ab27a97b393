"""A gateway before a service whose instances have different schemes: a change of one affects no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from tests.scenarios.gateway_load import GatewayLoad, register
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, wait_until


class _EchoHandler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # it is generic for type checkers only
    def service(self, _: Any) -> Any:
        async def answer(request: bytes, _: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_EchoHandler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def test_grpc_calls_continue_while_instances_of_other_schemes_come_and_go(gateway_load: GatewayLoad) -> None:
    await gateway_load.start_registry("memory:")
    answers: list[str] = []
    async with (
        JsonApi(gateway_load.sandbox.url) as api,
        echo_server() as one,
        echo_server() as two,
        running_instance("web") as web,
    ):
        for port in (one, two):
            await api.put(
                f"/services/orders/instances/g{port}", port=port, address="127.0.0.1", scheme="grpc", ttl=None
            )
        await gateway_load.start_gateway()
        options = [("grpc.default_authority", "orders.localhost")]
        async with grpc.aio.insecure_channel(gateway_load.listen, options) as channel:
            call = channel.unary_unary("/test.Echo/Say", None, None)
            assert await call(b"hello", timeout=SCENARIO_TIMEOUT, wait_for_ready=True) == b"hello"

            async def keep_calling() -> None:
                while True:
                    try:
                        answers.append((await call(b"ok", timeout=SCENARIO_TIMEOUT)).decode())
                    except grpc.aio.AioRpcError as error:
                        answers.append(f"{error.code().name}: {error.details()}")

            callers = [asyncio.create_task(keep_calling()) for _ in range(2)]

            async def wait_for_answers() -> None:
                seen = len(answers)
                await wait_until(lambda: len(answers) > seen + 50)

            for _ in range(3):
                await register(api, "orders", web)
                await gateway_load.wait_for_answer("/orders/", "web")
                await wait_for_answers()
                await api.put("/services/orders/instances/web/override", status="maintenance")
                await api.put(
                    "/services/orders/instances/tls", port=web.port, address="127.0.0.1", scheme="https", ttl=None
                )
                await wait_for_answers()
                await api.delete("/services/orders/instances/web")
                await api.delete("/services/orders/instances/tls")
                await wait_for_answers()
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
    assert set(answers) == {"ok"}
