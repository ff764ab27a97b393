"""Deploys and crashes of programs under `adsum run`, with load: no request fails, and the history has the reasons."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from adsum.client.client import Client
from adsum.run.child_process import signal_name
from tests.scenarios.processes import JsonApi, ScenarioProcess, ScenarioSandbox, wait_until
from tests.scenarios.service_caller import load

INSTANCES = 4
CHECK = "http:/health?interval=500ms&timeout=5s&rise=1&fall=2"


def _start_wrapped(sandbox: ScenarioSandbox, id: str, *options: str) -> ScenarioProcess:
    program = [sys.executable, "-m", "tests.scenarios.instance_server"]
    return sandbox.adsum("run", "--service", "orders", "--id", id, "--check", CHECK, *options, "--", *program)


async def _wait_until_listed(api: JsonApi, *ids: str) -> None:
    await api.wait_for_statuses("orders", lambda statuses: statuses == dict.fromkeys(ids, "passing"))


async def _changes_once_left(api: JsonApi, id: str) -> list[dict[str, Any]]:
    """Returns the changes of the instance, newest first, once it has left."""
    await api.wait_for_statuses("orders", lambda statuses: id not in statuses)
    changes: list[dict[str, Any]] = (await api.get("/changes", service="orders", id=id))["changes"]
    assert not changes[0].get("status")
    assert all(change["cause"] and change["actor"] for change in changes)
    return changes


async def test_a_rolling_restart_of_wrapped_programs_fails_no_request(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    ids = [f"o{n}" for n in range(INSTANCES)]
    running = {id: _start_wrapped(sandbox, id) for id in ids}
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        client = await stack.enter_async_context(Client(sandbox.url, cache=False))
        await _wait_until_listed(api, *ids)
        channel = client.channel("orders")
        await wait_until(lambda: channel.usable_count == INSTANCES)
        async with load(channel) as caller:
            await wait_until(lambda: len(caller.answered) == INSTANCES)
            for n, old in enumerate(ids):
                ids[n] = new = f"{old}-again"
                running[new] = _start_wrapped(sandbox, new)
                assert await running[old].stop() == 0, running[old].stderr
                await _wait_until_listed(api, *ids)
            await wait_until(lambda: set(ids) <= set(caller.answered))
        assert caller.failures == []
        await _wait_until_listed(api, *ids)
        for n in range(INSTANCES):
            left, *before = await _changes_once_left(api, f"o{n}")
            assert (left["cause"], left["reason"]) == ("deregistered", "stopped by SIGTERM")
            assert ("draining", "received SIGTERM") in [(change["status"], change.get("reason")) for change in before]


async def test_kill_9_of_an_instance_fails_no_idempotent_request(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    ids = [f"o{n}" for n in range(3)]
    running = {id: _start_wrapped(sandbox, id, "--ttl", "2s", "--grace", "1s") for id in ids}
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(JsonApi(sandbox.url))
        client = await stack.enter_async_context(Client(sandbox.url, cache=False))
        await _wait_until_listed(api, *ids)
        channel = client.channel("orders")
        await wait_until(lambda: channel.usable_count == len(ids))
        async with load(channel, workers=6) as caller:
            await wait_until(lambda: len(caller.answered) == len(ids))
            # The program dies, and its wrapper deregisters it at once.
            _kill_program_of(running["o0"])
            assert await running["o0"].wait() == 128 + signal.SIGKILL
            left = (await _changes_once_left(api, "o0"))[0]
            assert (left["cause"], left["reason"]) == ("deregistered", f"the program was killed by {signal_name(9)}")
            # Both die, as when a machine does: the instance is not deregistered, and its lease expires.
            await running["o1"].stop(signal.SIGKILL)
            left = (await _changes_once_left(api, "o1"))[0]
            assert (left["cause"], left["actor"]) == ("lease-expired", "registry")
            before = caller.answered["o2"]
            await wait_until(lambda: caller.answered["o2"] > before + 20)
        assert caller.failures == []
        await _wait_until_listed(api, "o2")


def _kill_program_of(wrapper: ScenarioProcess) -> None:
    (pid,) = Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text().split()
    os.kill(int(pid), signal.SIGKILL)
