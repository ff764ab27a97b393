"""Watch, long poll and conditional read agree at every revision, and none of them goes backwards."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from tests.scenarios.processes import SCENARIO_TIMEOUT, JsonApi, ScenarioSandbox, wait_until
from tests.scenarios.sse_watcher import SseWatcher, State

CHANGES = 300
PATH = "/services/orders"


class ObservedStates:
    """The states of the service that one reader saw, by revision."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {}
        self.latest = 0

    def add(self, revision: int, state: State) -> None:
        assert revision >= self.latest, f"{revision} after {self.latest}"
        assert self.states.get(revision, state) == state, "a revision never changes"
        self.latest = revision
        self.states[revision] = dict(state)


def _state(answer: Any) -> tuple[int, State]:
    return answer["revision"], {item["id"]: item for item in answer["instances"]}


async def _poll(api: JsonApi, seen: ObservedStates) -> None:
    """Long-polls for the state after the revision of the last answer."""
    after = 0
    while True:
        answer = await api.http.get(PATH, params={"after": after, "wait": 20})
        assert answer.status_code == 200, answer.text
        seen.add(*_state(answer.json()))
        revision = int(answer.headers["adsum-revision"])
        assert revision >= max(after, seen.latest), "the catalog is never behind one of its services"
        after = revision


async def _read(api: JsonApi, seen: ObservedStates, rng: Random) -> None:
    """Reads conditionally, and checks that an answer of 304 means no change."""
    tag, unchanged = "", 0
    while True:
        answer = await api.http.get(PATH, headers={"if-none-match": tag} if tag else {})
        if answer.status_code == 304:
            unchanged += 1
            assert answer.headers["etag"] == tag
        else:
            assert answer.status_code == 200, answer.text
            before = seen.states.get(seen.latest)
            revision, state = _state(answer.json())
            assert (revision, state) != (seen.latest, before), "an unchanged state is not sent again"
            seen.add(revision, state)
            tag = answer.headers["etag"]
        await asyncio.sleep(rng.uniform(0.0, 0.02))


def _is_done(reader: asyncio.Task[None]) -> bool:
    return reader.done()


async def _change(api: JsonApi, rng: Random) -> int:
    """Makes one change of any kind. Returns its revision."""
    instance = f"{PATH}/instances/o{rng.randrange(8)}"
    kind = rng.choice(("list", "list", "leave", "drain", "resume"))
    if kind == "list":
        written = await api.put(instance, port=rng.randrange(8000, 8004), weight=rng.randrange(1, 9))
    elif kind == "leave":
        written = await api.delete(instance, reason="by chance")
    else:
        body = {"status": rng.choice(("draining", "maintenance"))} if kind == "drain" else None
        answer = await api.http.request("PUT" if body else "DELETE", f"{instance}/override", json=body)
        if answer.status_code == 404:
            return 0
        written = answer.json()
    return int(written["revision"])


async def test_three_ways_of_reading_agree_at_every_revision(sandbox: ScenarioSandbox) -> None:
    await sandbox.start_registry()
    rng, watched, polled, read = Random(8), ObservedStates(), ObservedStates(), ObservedStates()
    watcher, first = SseWatcher(sandbox.url, ["orders"]), SseWatcher(sandbox.url, ["orders"])

    def record() -> None:
        watched.add(watcher.revisions.get("orders", 0), watcher.services.get("orders", {}))

    watcher.on_synced = record
    async with JsonApi(sandbox.url) as api, JsonApi(sandbox.url) as polling, JsonApi(sandbox.url) as reading:
        readers = [
            asyncio.create_task(watcher.follow()),
            asyncio.create_task(_poll(polling, polled)),
            asyncio.create_task(_read(reading, read, Random(9))),
        ]
        try:
            last = 0
            for n in range(CHANGES):
                last = max(last, await _change(api, rng))
                if n % 50 == 0:
                    # Changes of another service concern none of the readers.
                    await api.put("/services/users/instances/u1", port=8000 + n)
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.uniform(0.0, 0.05))
            revision = (await api.get(PATH))["revision"]
            assert revision <= last
            await wait_until(
                lambda: {watched.latest, polled.latest, read.latest} == {revision} or any(map(_is_done, readers)),
                lambda: f"{watched.latest} {polled.latest} {read.latest} of {revision}",
            )
        finally:
            for task in readers:
                task.cancel()
            outcomes = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes
        assert (watcher.connections, watcher.full_snapshots) == (1, 1)
        for one, other in ((watched, polled), (watched, read), (polled, read)):
            both = set(one.states) & set(other.states)
            assert revision in both
            assert len(both) > 2
            assert all(one.states[at] == other.states[at] for at in both)
        # A reader that comes last and reads the whole state has the same as those that followed every change.
        late = asyncio.create_task(first.follow())
        await wait_until(lambda: first.revision >= revision)
        late.cancel()
        await asyncio.wait([late], timeout=SCENARIO_TIMEOUT)
        assert first.services.get("orders", {}) == watched.states[revision]
