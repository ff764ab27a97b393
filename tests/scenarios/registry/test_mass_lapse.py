"""A mass lapse: instances that fall silent together are critical and stay, and a single one that dies is removed."""

from __future__ import annotations

import asyncio
import signal

from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioSandbox

INSTANCES = 8
TTL, GRACE = 2.0, 2.0
"""The guard needs a grace that is longer than the time between two renewals, a third of the ttl."""


async def test_no_instance_is_removed_when_most_fall_silent_and_a_single_one_is(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    lease = ["--ttl", f"{TTL:g}s", "--grace", f"{GRACE:g}s"]
    children = {
        f"o{n}": sandbox.adsum("register", "orders", "--id", f"o{n}", "--port", f"{8000 + n}", *lease)
        for n in range(INSTANCES)
    }
    async with JsonApi(sandbox.url) as api:
        await api.wait_for_statuses("orders", lambda statuses: [*statuses.values()] == ["passing"] * INSTANCES)
        silent = [f"o{n}" for n in range(6)]
        for id in silent:
            children[id].send_signal(signal.SIGSTOP)
        await api.wait_for_statuses("orders", lambda statuses: all(statuses[id] == "critical" for id in silent))
        # The guard acts when the grace of the leases is over.
        async with asyncio.timeout(SCENARIO_TIMEOUT):
            while (await api.get("/status")).get("guards", {}) != {"orders": len(silent)}:
                assert len(await api.statuses("orders")) == INSTANCES, "no instance is removed at any time"
        assert f'adsum_guarded_expiries{{service="orders"}} {len(silent)}.0' in await _metrics(sandbox)
        for id in silent:
            assert (await api.get(f"/services/orders/instances/{id}"))["lease"] == "lapsed"
        for id in silent:
            children[id].send_signal(signal.SIGCONT)
        await api.wait_for_statuses("orders", lambda statuses: [*statuses.values()] == ["passing"] * INSTANCES)
        async with asyncio.timeout(SCENARIO_TIMEOUT):
            while (await api.get("/status")).get("guards"):
                pass

        await children["o7"].stop(signal.SIGKILL)
        await api.wait_for_statuses("orders", lambda statuses: "o7" not in statuses)
        history = (await api.get("/changes", service="orders", id="o7"))["changes"]
        left, lapsed = history[:2]
        assert (left.get("status", ""), left["cause"], left["actor"]) == ("", "lease-expired", "registry")
        assert (lapsed["status"], lapsed["cause"]) == ("critical", "lease-lapsed")
        assert set(await api.statuses("orders")) == set(children) - {"o7"}
        gone = [
            change for change in (await api.get("/changes", service="orders"))["changes"] if not change.get("status")
        ]
        assert [change["id"] for change in gone] == ["o7"]


async def _metrics(sandbox: ScenarioSandbox) -> str:
    async with JsonApi(sandbox.url) as api:
        return (await api.http.get(f"{sandbox.url}/metrics")).text
