"""When most of a service falls silent at once it is shown as critical and kept; one that dies alone leaves."""

from __future__ import annotations

import asyncio
import signal

from tests.scenarios.processes import PATIENCE, Asking, Place

INSTANCES = 8
TTL, GRACE = 2.0, 2.0
"""The guard needs a grace that outlasts the time between two renewals, which is a third of the ttl."""


async def test_most_fall_silent_and_none_is_removed_then_one_dies_and_leaves(place: Place) -> None:
    await place.serve()
    lease = ["--ttl", f"{TTL:g}s", "--grace", f"{GRACE:g}s"]
    children = {
        f"o{n}": place.adsum("register", "orders", "--id", f"o{n}", "--port", f"{8000 + n}", *lease)
        for n in range(INSTANCES)
    }
    async with Asking(place.url) as asking:
        await asking.stand("orders", lambda statuses: [*statuses.values()] == ["passing"] * INSTANCES)
        silent = [f"o{n}" for n in range(6)]
        for id in silent:
            children[id].tell(signal.SIGSTOP)
        await asking.stand("orders", lambda statuses: all(statuses[id] == "critical" for id in silent))
        # The guard acts when the grace of each is over.
        async with asyncio.timeout(PATIENCE):
            while (await asking.get("/status")).get("guards", {}) != {"orders": len(silent)}:
                assert len(await asking.statuses("orders")) == INSTANCES, "nobody is removed, at no time"
        assert f'adsum_guarded{{service="orders"}} {len(silent)}.0' in await _metrics(place)
        for id in silent:
            assert (await asking.get(f"/services/orders/instances/{id}"))["lease"] == "lapsed"
        for id in silent:
            children[id].tell(signal.SIGCONT)
        await asking.stand("orders", lambda statuses: [*statuses.values()] == ["passing"] * INSTANCES)
        async with asyncio.timeout(PATIENCE):
            while (await asking.get("/status")).get("guards"):
                pass

        await children["o7"].end(signal.SIGKILL)
        await asking.stand("orders", lambda statuses: "o7" not in statuses)
        history = (await asking.get("/changes", service="orders", id="o7"))["changes"]
        left, lapsed = history[:2]
        assert (left.get("status", ""), left["cause"], left["actor"]) == ("", "lease-expired", "registry")
        assert (lapsed["status"], lapsed["cause"]) == ("critical", "lease-lapsed")
        assert set(await asking.statuses("orders")) == set(children) - {"o7"}
        gone = [each for each in (await asking.get("/changes", service="orders"))["changes"] if not each.get("status")]
        assert [each["id"] for each in gone] == ["o7"]


async def _metrics(place: Place) -> str:
    async with Asking(place.url) as asking:
        return (await asking.http.get(f"{place.url}/metrics")).text
