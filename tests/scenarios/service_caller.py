"""Consumers that call a service through a channel: in the test's process, or as programs that print a report."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from adsum.client.calls.channel import Channel
from adsum.client.calls.failures import FailureKind
from adsum.client.calls.options import CallOptions
from adsum.client.client import Client
from adsum.client.views.view import View
from adsum.core.errors import AdsumError
from tests.scenarios.instance_server import CHOSEN_HEADER
from tests.scenarios.processes import ScenarioProcess

WORKERS = 3
CALL_INTERVAL = 0.1
"""Seconds between two calls of one worker."""
OPTIONS = CallOptions(tries=4, try_timeout=10.0, deadline=30.0)


class ServiceCaller:
    """A caller that sends GET requests to a service from several workers at once, and counts the results."""

    def __init__(self, channel: Channel) -> None:
        self.answered: Counter[str] = Counter()
        """Answered calls by the id of the instance."""
        self.failures: list[str] = []
        self._channel = channel
        self._http = httpx.AsyncHTTPTransport(verify=False, trust_env=False)

    async def work(self) -> None:
        """Calls again and again, as one worker, until cancelled."""
        while True:
            await self.call_once()
            await asyncio.sleep(CALL_INTERVAL)

    async def call_once(self) -> None:
        """Makes one call and counts its result."""
        try:
            self.answered[await self._call()] += 1
        except (AdsumError, httpx.HTTPError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self) -> str:
        call = self._channel.call(idempotent=True, options=OPTIONS)
        while True:
            attempt = call.next_try()
            chosen = time.monotonic()
            with attempt:
                await asyncio.sleep(attempt.pause)
                timeout = httpx.Timeout(attempt.timeout).as_dict()
                headers = {"host": attempt.endpoint.authority, CHOSEN_HEADER: repr(chosen)}
                request = httpx.Request(
                    "GET", f"{attempt.endpoint.url}/", headers=headers, extensions={"timeout": timeout}
                )
                try:
                    response = await self._http.handle_async_request(request)
                    body = await response.aread()
                except httpx.ConnectError as error:
                    attempt.record_failure(FailureKind.CONNECT, str(error))
                except httpx.TransportError as error:
                    attempt.record_failure(FailureKind.BROKEN, str(error) or type(error).__name__)
                else:
                    if not attempt.should_retry(response.status_code):
                        attempt.finish()
                        return body.decode()


async def final_report(program: ScenarioProcess) -> dict[str, Any]:
    """Stops a consumer program and returns the report that it prints at its end."""
    assert await program.stop() == 0, program.stderr
    last: dict[str, Any] = json.loads(program.stdout.splitlines()[-1])
    return last


@asynccontextmanager
async def load(channel: Channel, workers: int = WORKERS) -> AsyncIterator[ServiceCaller]:
    """Runs a caller with that many workers."""
    caller = ServiceCaller(channel)
    tasks = [asyncio.create_task(caller.work()) for _ in range(workers)]
    try:
        yield caller
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await caller.close()


async def _main(service: str, cache: str) -> None:
    """Calls the service until SIGTERM. Prints each new view, and in the end a report of the calls."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with Client(cache=cache or False) as client:
        channel = client.channel(service)
        await channel.ready(30.0)
        channel.resolver.subscribe(_print_view)
        async with load(channel) as caller:
            while not caller.answered:  # noqa: ASYNC110 - a moment
                await asyncio.sleep(0.01)
            print("calling", flush=True)  # noqa: T201 - the test reads it
            await ended.wait()
        print(json.dumps({"answered": caller.answered, "failures": caller.failures}))  # noqa: T201 - the test reads it


def _print_view(view: View) -> None:
    print(f"{view.origin} {' '.join(endpoint.id for endpoint in view.endpoints)}.", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:3]))
