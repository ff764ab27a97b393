from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from adsum import watches, wire
from adsum.consumers import Consumer
from adsum.core.catalog import service_snapshot
from adsum.core.catalog.changes import FullState
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause as C
from adsum.core.provenance import Provenance
from adsum.dialects.native.operations import watch as watch_operation
from tests.dialects.native.native_api import NativeApi, WatchEvent
from tests.support.fakes import run_until_idle


def _kinds(group: list[WatchEvent]) -> list[str]:
    return [event.kind for event in group]


async def until(true: Callable[[], bool]) -> None:
    """Return once it is so."""
    async with asyncio.timeout(10.0):
        while not true():  # noqa: ASYNC110 - beats come by the loop's own clock
            await asyncio.sleep(0.005)


async def _quiet(spoken: NativeApi) -> None:
    """Let the rest between two wakings pass."""
    spoken.clock.jump(1.0)
    await run_until_idle()


async def test_a_new_watch_is_shown_the_whole_and_marked_so(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    await spoken.register("users", "u1")
    async with spoken.watch("?service=orders") as watch:
        opened, service, synced = await watch.next_group()
        assert watch.start["status"] == 200
        headers = dict(watch.start["headers"])
        assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"x-accel-buffering"] == b"no"
        assert watch.writes[0].startswith(b"retry: ")
    assert opened.kind == "open"
    says = {"epoch": "e1", "revision": 2, "full": True, "watch": "", "age": 0.0, "heartbeat": 3.0}
    assert opened.data | {"watch": ""} == says
    assert service.kind == "service"
    assert [each["id"] for each in service.data["instances"]] == ["o1"]
    assert (synced.kind, synced.id, synced.data["revision"]) == ("synced", "e1:2", 2)
    assert not opened.id
    assert not service.id, "a watch may only be resumed where a group is complete"


async def test_a_change_comes_in_one_write_with_its_synced(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        await spoken.register("orders", "o2")
        change, synced = await watch.next_group()
        assert watch.writes[-1].count(b"\n\n") == 2
    view = wire.decode(json.dumps(change.data), wire.ServiceChange)
    assert (view.service, view.since, view.revision) == ("orders", 1, 2)
    assert [each.id for each in view.changed] == ["o2"]
    assert synced.id == "e1:2"


async def test_who_left_is_told_with_cause_and_actor(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        await spoken.deregister("orders", "o1", "?reason=night")
        change, _ = await watch.next_group()
    (gone,) = change.data["removed"]
    assert (gone["id"], gone["cause"], gone["actor"], gone["reason"]) == ("o1", "deregistered", "10.1.2.3", "night")


async def test_a_watch_of_one_service_hears_nothing_of_others(spoken: NativeApi) -> None:
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        await spoken.register("users", "u1")
        await run_until_idle()
        assert watch.is_quiet


async def test_a_service_may_be_watched_before_it_is_there(spoken: NativeApi) -> None:
    async with spoken.watch("?service=orders") as watch:
        _, service, _ = await watch.next_group()
        assert service.data["instances"] == []
        await spoken.register("orders", "o1")
        assert _kinds(await watch.next_group()) == ["change", "synced"]


async def test_several_services_are_told_in_one_group(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&service=users&service=orders") as watch:
        assert _kinds(await watch.next_group()) == ["open", "service", "service", "synced"]
        spoken.clock.jump(1.0)
        await asyncio.gather(
            spoken.register("orders", "o2"), spoken.register("users", "u1"), spoken.register("carts", "c1")
        )
        group = await watch.next_group()
        while {event.data.get("service") for event in group} != {"orders", "users", None}:
            await _quiet(spoken)
            group += await watch.next_group()
        assert all(bool(event.id) == (event.kind == "synced") for event in group)


async def test_a_watch_of_everything_hears_of_services_to_come(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch() as watch:
        assert _kinds(await watch.next_group()) == ["open", "service", "synced"]
        await spoken.register("users", "u1")
        change, _ = await watch.next_group()
        assert change.data["service"] == "users"


@pytest.mark.parametrize("header", [True, False])
async def test_a_watch_resumes_where_it_was(spoken: NativeApi, header: bool) -> None:
    await spoken.register("orders", "o1")
    await spoken.register("orders", "o2")
    await spoken.deregister("orders", "o1")
    query, headers = ("", {"Last-Event-ID": "e1:1"}) if header else ("&since=e1:1", {})
    async with spoken.watch(f"?service=orders{query}", headers) as watch:
        opened, change, synced = await watch.next_group()
    assert opened.data["full"] is False
    assert change.kind == "change"
    assert [each["id"] for each in change.data["changed"]] == ["o2"]
    assert [each["id"] for each in change.data["removed"]] == ["o1"]
    assert synced.id == "e1:3"


async def test_who_missed_nothing_is_only_told_so(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    await spoken.register("users", "u1")
    async with spoken.watch("?service=orders", {"Last-Event-ID": "e1:1"}) as watch:
        assert _kinds(await watch.next_group()) == ["open", "synced"]


@pytest.mark.parametrize("last", ["e0:1", "e1:99"])
async def test_another_history_can_not_be_resumed(spoken: NativeApi, last: str) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders", {"Last-Event-ID": last}) as watch:
        group = await watch.next_group()
    assert group[0].data["full"] is True
    assert _kinds(group) == ["open", "service", "synced"]


async def test_who_was_away_for_too_many_changes_is_shown_the_whole(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_snapshot, "MAX_RECENT_CHANGES", 2)
    for n in range(4):
        await spoken.register("orders", f"o{n}")
    async with spoken.watch("?service=orders", {"Last-Event-ID": "e1:1"}) as watch:
        group = await watch.next_group()
    assert group[0].data["full"] is True
    assert len(group[1].data["instances"]) == 4


@pytest.mark.parametrize("query", ["?service=orders", ""])
@pytest.mark.parametrize(("shown", "whole", "missed"), [(1, True, 0), (2, False, 2), (3, False, 1), (4, False, 0)])
async def test_the_horizon_is_the_last_revision_to_resume_from(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch, query: str, shown: int, whole: bool, missed: int
) -> None:
    monkeypatch.setattr(service_snapshot, "MAX_RECENT_CHANGES", 2)
    for n in range(4):
        await spoken.register("orders", f"o{n}")
    async with spoken.watch(query, {"Last-Event-ID": f"e1:{shown}"}) as watch:
        opened, *rest = await watch.next_group()
    # Who watches everything keeps its place: the one service that it can't follow is said whole.
    assert opened.data["full"] is (whole and bool(query))
    assert _kinds(rest) == (["service"] if whole else ["change"] if missed else []) + ["synced"]
    if rest[0].kind == "change":
        assert [each["id"] for each in rest[0].data["changed"]] == [f"o{n}" for n in range(4 - missed, 4)]


async def test_a_service_that_comes_back_is_told_as_gone_and_as_new(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders", {"Last-Event-ID": "e1:1"}) as watch:
        await watch.next_group()
        await spoken.deregister("orders", "o1")
        gone, _ = await watch.next_group()
        await _quiet(spoken)
        await spoken.register("orders", "o1", zone="eu")
        spoken.registry.watches.publish(None)
        back, synced = await watch.next_group()
    assert ([each["id"] for each in gone.data["removed"]], gone.data.get("changed", [])) == (["o1"], [])
    assert ([each["zone"] for each in back.data["changed"]], back.data["since"]) == (["eu"], 2)
    assert synced.id == "e1:3"


async def test_a_watch_too_slow_for_the_trail_is_shown_that_service_anew(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_snapshot, "MAX_RECENT_CHANGES", 2)
    async with spoken.watch() as watch:
        await watch.next_group()
        await spoken.register("orders", "o0")
        await watch.next_group()
        await asyncio.gather(*(spoken.register("orders", f"o{n}") for n in range(1, 5)))
        await spoken.register("orders", "o5")
        spoken.registry.watches.publish(None)
        await _quiet(spoken)
        spoken.registry.watches.publish(None)
        service, _ = await watch.next_group()
    assert service.kind == "service"
    assert len(service.data["instances"]) == 6


async def test_a_new_history_opens_the_watch_again(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        await _quiet(spoken)
        instance = Instance("orders", "x", "10.0.0.9", 80)
        spoken.store.replace_history(
            FullState("e2", 7, [(7, Listing(Registration(instance), Provenance(C.REGISTERED, "a")))])
        )
        opened, service, synced = await watch.next_group()
    assert (opened.kind, opened.data["full"], opened.data["epoch"]) == ("open", True, "e2")
    assert [each["id"] for each in service.data["instances"]] == ["x"]
    assert synced.id == "e2:7"


async def test_a_burst_is_told_in_few_groups(spoken: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MIN_WAKE_INTERVAL", 0.2)
    told: list[str] = []
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        now = asyncio.get_running_loop().time
        began = now()
        for n in range(100):
            await spoken.register("orders", f"o{n}")
        shown = groups = 0
        while shown < 100:
            *changes, synced = await watch.next_group()
            told += [each["id"] for change in changes for each in change.data["changed"]]
            shown, groups = synced.data["revision"], groups + 1
        assert groups <= 2 + (now() - began) / 0.2
    assert sorted(told) == sorted(f"o{n}" for n in range(100)), "each once, as it is now"


async def test_a_quiet_watch_hears_a_heartbeat() -> None:
    spoken = NativeApi(heartbeat=0.01)
    await spoken.registry.start()
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        (beat,) = await watch.next_group()
    assert (beat.kind, beat.id) == ("synced", "e1:1")
    await spoken.registry.stop()


async def test_watches_that_are_due_together_share_the_bytes_of_a_heartbeat() -> None:
    spoken = NativeApi(heartbeat=0.1)
    await spoken.registry.start()
    said: list[bytes] = []
    more = {"adsum.send_chunk": lambda text: not said.append(text)}  # type: ignore[func-returns-value]
    async with (
        spoken.watch("?service=orders", state=more) as one,
        spoken.watch("?service=users", state=more) as two,
        spoken.watch("", state=more) as every,
    ):
        for watch in (one, two, every):
            await watch.next_group()
        await until(lambda: len(said) >= 3)
        assert all(each is said[0] for each in said[:3])
    await spoken.registry.stop()


async def test_a_consumer_is_known_by_its_id_and_named_by_its_name_and_address(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true&consumer=c1&name=web%20shop") as watch:
        await watch.next_group()
    standing = await spoken.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)
    (pending,) = standing.waiting
    assert pending.consumer == Consumer("c1", "web shop", "10.1.2.3", acks_immediately=True)


async def test_each_connection_without_an_id_is_a_consumer_of_its_own(spoken: NativeApi) -> None:
    async with spoken.watch("?acks=true") as one, spoken.watch("?acks=true") as two:
        for each in (one, two):
            await each.next_group()
        standing = await spoken.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)
        assert len({pending.consumer.id for pending in standing.waiting}) == 2


@pytest.mark.parametrize("query", ["?service=orders", "?service=orders&acks=false&consumer=c1"])
async def test_an_onlooker_is_never_waited_for(spoken: NativeApi, query: str) -> None:
    async with spoken.watch(query) as watch:
        await watch.next_group()
        assert (await spoken.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting == []
    assert (await spoken.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting == []


@pytest.mark.parametrize(
    ("query", "field"), [("consumer=a/b", "consumer"), ("name=" + "x" * 129, "name"), ("name=a%0Ab", "name")]
)
async def test_what_is_no_id_or_name_of_a_consumer_is_refused(spoken: NativeApi, query: str, field: str) -> None:
    heard = await spoken.request("GET", f"/api/v1/watch?acks=true&{query}")
    assert (heard.status, heard.json["field"]) == (422, field)


@pytest.mark.parametrize(("vanished", "waiting"), [(False, 1), (True, 0)])
async def test_a_consumer_whose_system_acknowledged_nothing_is_lost_at_once(
    spoken: NativeApi, vanished: bool, waiting: int
) -> None:
    async with spoken.watch("?acks=true", state={"adsum.abort_if_silent": lambda _: lambda: vanished}) as watch:
        await watch.next_group()
    standing = await spoken.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)
    assert (len(standing.waiting), len(standing.lost)) == (waiting, 1 - waiting)


async def test_watches_of_the_same_share_the_same_bytes(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders") as one, spoken.watch("?service=orders") as two:
        for each in (one, two):
            await each.next_group()
        await spoken.register("orders", "o2")
        assert await one.next_write() is await two.next_write()


async def test_what_is_long_is_said_in_several_writes(spoken: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_operation, "MAX_WRITE_BYTES", 100)
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders") as watch:
        text = b""
        while b"event: synced" not in text or not text.endswith(b"\n\n"):
            text += await watch.next_write()
        assert max(map(len, watch.writes)) == 100


async def test_the_end_of_the_registry_ends_a_watch_with_a_word(spoken: NativeApi) -> None:
    async with spoken.watch("?service=orders") as watch:
        await watch.next_group()
        spoken.registry.watches.end()
        assert (await watch.next_write()).startswith(b": ")
        await asyncio.wait_for(watch.task, 10)
    late = await spoken.request("GET", "/api/v1/watch")
    assert (late.status, late.json["detail"]) == (503, "the node is stopping")


async def test_who_hangs_up_is_forgotten_at_once(spoken: NativeApi) -> None:
    async with spoken.watch("?acks=true") as watch:
        await watch.next_group()
        assert spoken.registry.watches.count == 1
        watch.hang_up()
        await asyncio.wait_for(watch.task, 10)
        assert spoken.registry.watches.count == 0


async def test_too_many_watches_are_refused(spoken: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MAX_WATCHES", 0)
    heard = await spoken.request("GET", "/api/v1/watch")
    assert (heard.status, heard.headers["retry-after"]) == (503, "10")
