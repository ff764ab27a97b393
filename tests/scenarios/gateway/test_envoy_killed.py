"""An Envoy that is killed under load is started again, and requests fail only until it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc.aio
import httpx

from tests.scenarios.gateway_load import GatewayLoad, child_pid, register
from tests.scenarios.instance_server import running_instance
from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioProcess, wait_until

CALLERS = 8
Call = Callable[[], Awaitable[str]]
"""One try. Returns the id of the instance, or raises `ConnectionError` if none is reachable or the connection broke."""


class TimedTry(NamedTuple):
    """A try: when it began and ended, in monotonic seconds, and the error, "" if it was answered."""

    began: float
    ended: float
    error: str


@dataclass
class TimedTries:
    """All tries, in the order of their ends."""

    all: list[TimedTry] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """Requests with a wrong answer, or with none after all tries."""

    @property
    def answered(self) -> int:
        return sum(not attempt.error for attempt in self.all)

    @property
    def failed(self) -> list[TimedTry]:
        return [attempt for attempt in self.all if attempt.error]

    def first_answer_after(self, killed: float) -> float:
        """Returns the instant of the first answer to a request that began after `killed`; infinity if there is none."""
        return min(
            (attempt.ended for attempt in self.all if not attempt.error and attempt.began > killed),
            default=float("inf"),
        )


@asynccontextmanager
async def _load(call: Call) -> AsyncIterator[TimedTries]:
    """Runs callers that retry an idempotent request until it is answered."""
    made = TimedTries()

    async def work() -> None:
        while True:
            deadline = time.monotonic() + SCENARIO_TIMEOUT
            while not await once():
                if time.monotonic() > deadline:
                    made.unanswered.append(made.all[-1].error)
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.002)

    async def once() -> bool:
        began = time.monotonic()
        try:
            answer = await call()
        except ConnectionError as error:
            made.all.append(TimedTry(began, time.monotonic(), str(error)))
            return False
        made.all.append(TimedTry(began, time.monotonic(), ""))
        if answer != "o1":
            made.unanswered.append(answer)
        return True

    tasks = [asyncio.create_task(work()) for _ in range(CALLERS)]
    try:
        await wait_until(lambda: made.answered > 10 * CALLERS, lambda: made.failed[-3:])
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kill_envoy(gateway: ScenarioProcess, call: Call) -> tuple[float, TimedTries]:
    """Kills the gateway's Envoy under load. Returns the instant of the kill, and the tries before and after it."""
    async with _load(call) as made:
        envoy = child_pid(gateway)
        killed = time.monotonic()
        os.kill(envoy, signal.SIGKILL)
        await wait_until(
            lambda: made.first_answer_after(killed) < float("inf"), lambda: (made.failed[-3:], gateway.stderr)
        )
        seen = made.answered
        await wait_until(lambda: made.answered > seen + 20 * CALLERS, lambda: made.failed[-3:])
        assert child_pid(gateway) != envoy
    return killed, made


async def test_requests_fail_only_until_envoy_is_back_and_none_after_retries(gateway_load: GatewayLoad) -> None:
    await gateway_load.start_registry()

    async def call() -> str:
        try:
            answer = await gateway_load.http.get("/orders/")
        except httpx.TransportError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        return answer.text if answer.status_code == 200 else f"{answer.status_code}: {answer.text}"

    async with JsonApi(gateway_load.sandbox.url) as api, running_instance("o1") as found:
        await register(api, "orders", found)
        gateway = await gateway_load.start_gateway()
        await gateway_load.wait_for_answer()
        killed, made = await _kill_envoy(gateway, call)
    assert made.unanswered == [], "Envoy answers nothing before it has its whole configuration"
    assert made.failed, "the kill had no effect"
    assert min(attempt.ended for attempt in made.failed) >= killed
    assert max(attempt.began for attempt in made.failed) <= made.first_answer_after(killed)


async def test_only_running_grpc_calls_are_lost_if_callers_wait_for_a_connection(gateway_load: GatewayLoad) -> None:
    await gateway_load.start_registry()
    gateway_load.sandbox.run("serve", "-m", "tests.integrations.programs.grpc_programs", "serve", "o1")
    options = [("grpc.default_authority", "names.localhost"), ("grpc.initial_reconnect_backoff_ms", 100)]
    options += [("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
    async with JsonApi(gateway_load.sandbox.url) as api:
        await api.wait_for_statuses("names", lambda statuses: statuses == {"o1": "passing"})
    gateway = await gateway_load.start_gateway()
    async with grpc.aio.insecure_channel(gateway_load.listen, options) as channel:
        method: Any = channel.unary_unary("/test.Names/Name", request_serializer=bytes, response_deserializer=bytes)

        async def call() -> str:
            try:
                return bytes(await method(b"", timeout=SCENARIO_TIMEOUT, wait_for_ready=True)).decode()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise ConnectionError(error.details()) from error
                return f"{error.code().name}: {error.details()}"

        killed, made = await _kill_envoy(gateway, call)
    assert made.unanswered == []
    assert min((attempt.ended for attempt in made.failed), default=killed) >= killed
    assert max((attempt.began for attempt in made.failed), default=killed) <= made.first_answer_after(killed)
    assert len(made.failed) <= CALLERS, "calls that began later waited"
