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
from adsum.core.provenance import Cause, Provenance
from adsum.dialects.native.events import watch_stream
from adsum.ports import ABORT_IF_SILENT, ON_DISCONNECT, OPEN_CHUNKS
from tests.dialects.native.native_api import FakeChunks, NativeApi, WatchEvent
from tests.support.fakes import run_until_idle


def _kinds(group: list[WatchEvent]) -> list[str]:
    return [event.kind for event in group]


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 - heartbeats follow the clock of the event loop
            await asyncio.sleep(0.005)


async def _pass_wake_interval(api: NativeApi) -> None:
    """Lets the minimum interval between two wakes pass."""
    api.clock.jump(1.0)
    await run_until_idle()


async def test_a_new_watch_begins_with_the_full_state(api: NativeApi) -> None:
    await api.register("orders", "o1")
    await api.register("users", "u1")
    async with api.watch("?service=orders") as watch:
        opened, service, synced = await watch.next_group()
        assert watch.start["status"] == 200
        headers = dict(watch.start["headers"])
        assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"x-accel-buffering"] == b"no"
        assert watch.writes[0].startswith(b"retry: ")
    assert opened.kind == "open"
    expected = {"epoch": "e1", "revision": 2, "full": True, "watch": "", "age": 0.0, "heartbeat": 3.0, "joins": True}
    assert opened.data | {"watch": ""} == expected
    assert service.kind == "service"
    assert [instance["id"] for instance in service.data["instances"]] == ["o1"]
    assert (synced.kind, synced.id, synced.data["revision"]) == ("synced", "e1:2", 2)
    assert not opened.id
    assert not service.id, "only the end of a group has an id to resume from"


async def test_a_change_and_its_synced_event_come_in_one_write(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        await api.register("orders", "o2")
        change, synced = await watch.next_group()
        assert watch.writes[-1].count(b"\n\n") == 2
    view = wire.decode(json.dumps(change.data), wire.ServiceChange)
    assert (view.service, view.since, view.revision) == ("orders", 1, 2)
    assert [instance.id for instance in view.changed] == ["o2"]
    assert synced.id == "e1:2"


async def test_a_removal_has_its_cause_and_actor(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        await api.deregister("orders", "o1", "?reason=night")
        change, _ = await watch.next_group()
    (removed,) = change.data["removed"]
    assert (removed["id"], removed["cause"], removed["actor"], removed["reason"]) == (
        "o1",
        "deregistered",
        "anonymous@10.1.2.3",
        "night",
    )


async def test_a_watch_of_one_service_gets_no_events_of_others(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        await api.register("users", "u1")
        await run_until_idle()
        assert watch.is_quiet


async def test_a_service_can_be_watched_before_it_is_registered(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        _, service, _ = await watch.next_group()
        assert service.data["instances"] == []
        await api.register("orders", "o1")
        assert _kinds(await watch.next_group()) == ["change", "synced"]


async def test_several_services_come_in_one_group(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&service=users&service=orders") as watch:
        assert _kinds(await watch.next_group()) == ["open", "service", "service", "synced"]
        api.clock.jump(1.0)
        await asyncio.gather(api.register("orders", "o2"), api.register("users", "u1"), api.register("carts", "c1"))
        group = await watch.next_group()
        while {event.data.get("service") for event in group} != {"orders", "users", None}:
            await _pass_wake_interval(api)
            group += await watch.next_group()
        assert all(bool(event.id) == (event.kind == "synced") for event in group)


async def test_a_watch_of_all_services_gets_later_ones(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch() as watch:
        assert _kinds(await watch.next_group()) == ["open", "service", "synced"]
        await api.register("users", "u1")
        change, _ = await watch.next_group()
        assert change.data["service"] == "users"


@pytest.mark.parametrize("header", [True, False])
async def test_a_watch_resumes_from_its_position(api: NativeApi, header: bool) -> None:
    await api.register("orders", "o1")
    await api.register("orders", "o2")
    await api.deregister("orders", "o1")
    query, headers = ("", {"Last-Event-ID": "e1:1"}) if header else ("&since=e1:1", {})
    async with api.watch(f"?service=orders{query}", headers) as watch:
        opened, change, synced = await watch.next_group()
    assert opened.data["full"] is False
    assert change.kind == "change"
    assert [instance["id"] for instance in change.data["changed"]] == ["o2"]
    assert [removed["id"] for removed in change.data["removed"]] == ["o1"]
    assert synced.id == "e1:3"


async def test_a_watch_that_missed_nothing_resumes_with_synced_alone(api: NativeApi) -> None:
    await api.register("orders", "o1")
    await api.register("users", "u1")
    async with api.watch("?service=orders", {"Last-Event-ID": "e1:1"}) as watch:
        assert _kinds(await watch.next_group()) == ["open", "synced"]


@pytest.mark.parametrize("last", ["e0:1", "e1:99"])
async def test_a_watch_of_another_history_begins_with_the_full_state(api: NativeApi, last: str) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders", {"Last-Event-ID": last}) as watch:
        group = await watch.next_group()
    assert group[0].data["full"] is True
    assert _kinds(group) == ["open", "service", "synced"]


async def test_a_watch_that_missed_too_many_changes_begins_with_the_full_state(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_snapshot, "MAX_RECENT_CHANGES", 2)
    for n in range(4):
        await api.register("orders", f"o{n}")
    async with api.watch("?service=orders", {"Last-Event-ID": "e1:1"}) as watch:
        group = await watch.next_group()
    assert group[0].data["full"] is True
    assert len(group[1].data["instances"]) == 4


@pytest.mark.parametrize("query", ["?service=orders", ""])
@pytest.mark.parametrize(("since", "is_full", "missed"), [(1, True, 0), (2, False, 2), (3, False, 1), (4, False, 0)])
async def test_a_watch_resumes_from_the_compact_revision_and_no_earlier_one(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch, query: str, since: int, is_full: bool, missed: int
) -> None:
    monkeypatch.setattr(service_snapshot, "MAX_RECENT_CHANGES", 2)
    for n in range(4):
        await api.register("orders", f"o{n}")
    async with api.watch(query, {"Last-Event-ID": f"e1:{since}"}) as watch:
        opened, *rest = await watch.next_group()
    # A watch of all services resumes nevertheless: only the service whose changes are forgotten comes in full.
    assert opened.data["full"] is (is_full and bool(query))
    assert _kinds(rest) == (["service"] if is_full else ["change"] if missed else []) + ["synced"]
    if rest[0].kind == "change":
        assert [instance["id"] for instance in rest[0].data["changed"]] == [f"o{n}" for n in range(4 - missed, 4)]


async def test_an_instance_that_returns_comes_as_removed_and_as_changed(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders", {"Last-Event-ID": "e1:1"}) as watch:
        await watch.next_group()
        await api.deregister("orders", "o1")
        removal, _ = await watch.next_group()
        await _pass_wake_interval(api)
        await api.register("orders", "o1", zone="eu")
        api.registry.watches.publish(None)
        addition, synced = await watch.next_group()
    assert ([removed["id"] for removed in removal.data["removed"]], removal.data.get("changed", [])) == (["o1"], [])
    assert ([instance["zone"] for instance in addition.data["changed"]], addition.data["since"]) == (["eu"], 2)
    assert synced.id == "e1:3"


async def test_a_slow_watch_gets_the_whole_service_when_changes_are_forgotten(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_snapshot, "MAX_RECENT_CHANGES", 2)
    async with api.watch() as watch:
        await watch.next_group()
        await api.register("orders", "o0")
        await watch.next_group()
        await asyncio.gather(*(api.register("orders", f"o{n}") for n in range(1, 5)))
        await api.register("orders", "o5")
        api.registry.watches.publish(None)
        await _pass_wake_interval(api)
        api.registry.watches.publish(None)
        service, _ = await watch.next_group()
    assert service.kind == "service"
    assert len(service.data["instances"]) == 6


async def test_a_new_epoch_comes_as_another_open_event(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        await _pass_wake_interval(api)
        instance = Instance("orders", "x", "10.0.0.9", 80)
        api.store.replace_history(
            FullState("e2", 7, [(7, Listing(Registration(instance), Provenance(Cause.REGISTERED, "a")))])
        )
        opened, service, synced = await watch.next_group()
    assert (opened.kind, opened.data["full"], opened.data["epoch"]) == ("open", True, "e2")
    assert [instance["id"] for instance in service.data["instances"]] == ["x"]
    assert synced.id == "e2:7"


async def test_a_burst_of_changes_comes_in_few_groups(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MIN_WAKE_INTERVAL", 0.2)
    ids: list[str] = []
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        now = asyncio.get_running_loop().time
        began = now()
        for n in range(100):
            await api.register("orders", f"o{n}")
        revision = groups = 0
        while revision < 100:
            *changes, synced = await watch.next_group()
            ids += [instance["id"] for change in changes for instance in change.data["changed"]]
            revision, groups = synced.data["revision"], groups + 1
        assert groups <= 2 + (now() - began) / 0.2
    assert sorted(ids) == sorted(f"o{n}" for n in range(100)), "each instance once"


async def test_a_quiet_watch_gets_heartbeats() -> None:
    api = NativeApi(heartbeat=0.01)
    await api.registry.start()
    await api.register("orders", "o1")
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        (heartbeat,) = await watch.next_group()
    assert (heartbeat.kind, heartbeat.id) == ("synced", "e1:1")
    await api.registry.stop()


async def test_watches_in_one_slot_share_the_bytes_of_a_heartbeat() -> None:
    api = NativeApi(heartbeat=0.1)
    await api.registry.start()
    written: list[bytes] = []
    state = {OPEN_CHUNKS: lambda: FakeChunks(written)}
    async with (
        api.watch("?service=orders", state=state) as one,
        api.watch("?service=users", state=state) as two,
        api.watch("", state=state) as every,
    ):
        for watch in (one, two, every):
            await watch.next_group()
        await until(lambda: len(written) >= 3)
        assert all(data is written[0] for data in written[:3])
    await api.registry.stop()


async def test_a_consumer_has_the_id_name_and_address_of_its_watch(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&consumer=c1&name=web%20shop") as watch:
        await watch.next_group()
    status = await api.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)
    (pending,) = status.waiting
    assert pending.consumer == Consumer("c1", "web shop", "10.1.2.3", acks_immediately=True)


async def test_each_connection_without_a_consumer_id_is_a_consumer_of_its_own(api: NativeApi) -> None:
    async with api.watch("?acks=true") as one, api.watch("?acks=true") as two:
        for watch in (one, two):
            await watch.next_group()
        status = await api.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)
        assert len({pending.consumer.id for pending in status.waiting}) == 2


@pytest.mark.parametrize("query", ["?service=orders", "?service=orders&acks=false&consumer=c1"])
async def test_a_watch_without_acks_is_never_waited_for(api: NativeApi, query: str) -> None:
    async with api.watch(query) as watch:
        await watch.next_group()
        assert (await api.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting == []
    assert (await api.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)).waiting == []


@pytest.mark.parametrize(
    ("query", "field"), [("consumer=a/b", "consumer"), ("name=" + "x" * 129, "name"), ("name=a%0Ab", "name")]
)
async def test_an_invalid_id_or_name_of_a_consumer_is_refused(api: NativeApi, query: str, field: str) -> None:
    response = await api.request("GET", f"/api/v1/watch?acks=true&{query}")
    assert (response.status, response.json["field"]) == (422, field)


@pytest.mark.parametrize(("is_peer_lost", "waiting"), [(False, 1), (True, 0)])
async def test_a_consumer_is_lost_at_once_when_its_system_acknowledges_nothing(
    api: NativeApi, is_peer_lost: bool, waiting: int
) -> None:
    async with api.watch("?acks=true", state={ABORT_IF_SILENT: lambda _: lambda: is_peer_lost}) as watch:
        await watch.next_group()
    status = await api.registry.watches.consumers.wait_for_acknowledgements("orders", 1, 0.0)
    assert (len(status.waiting), len(status.lost)) == (waiting, 1 - waiting)


async def test_watches_of_the_same_services_share_their_bytes(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders") as one, api.watch("?service=orders") as two:
        for watch in (one, two):
            await watch.next_group()
        await api.register("orders", "o2")
        assert await one.next_write() is await two.next_write()


async def test_a_long_group_comes_in_several_writes(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_stream, "MAX_WRITE_BYTES", 100)
    await api.register("orders", "o1")
    async with api.watch("?service=orders") as watch:
        text = b""
        while b"event: synced" not in text or not text.endswith(b"\n\n"):
            text += await watch.next_write()
        assert max(map(len, watch.writes)) == 100


async def test_a_stopping_registry_ends_a_watch_with_a_comment(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        await watch.next_group()
        api.registry.watches.end()
        assert (await watch.next_write()).startswith(b": ")
        await asyncio.wait_for(watch.task, 10)
    late = await api.request("GET", "/api/v1/watch")
    assert (late.status, late.json["detail"]) == (503, "the node is stopping")


async def test_a_watch_is_removed_when_its_client_disconnects(api: NativeApi) -> None:
    async with api.watch("?acks=true") as watch:
        await watch.next_group()
        assert api.registry.watches.count == 1
        watch.hang_up()
        await asyncio.wait_for(watch.task, 10)
        assert api.registry.watches.count == 0


@pytest.mark.parametrize("has_left", [False, True])
async def test_a_watch_ends_when_the_server_reports_that_its_client_left(api: NativeApi, has_left: bool) -> None:
    """`has_left`: before the watch began."""
    callbacks: list[Callable[[], None] | None] = []

    def on_disconnect(callback: Callable[[], None] | None) -> bool:
        callbacks.append(callback)
        return not has_left

    async with api.watch("?service=orders", state={ON_DISCONNECT: on_disconnect}) as watch:
        if not has_left:
            await watch.next_group()
            assert api.registry.watches.count == 1
            assert callbacks[0] is not None
            callbacks[0]()
        await asyncio.wait_for(watch.task, 10)
        assert api.registry.watches.count == 0
    assert callbacks[1:] == [None]


async def test_nothing_is_pushed_into_a_watch_that_ends(api: NativeApi) -> None:
    written: list[bytes] = []
    chunks = FakeChunks(written)
    async with api.watch("?service=orders", state={OPEN_CHUNKS: lambda: chunks}) as watch:
        await watch.next_group()
        await api.register("orders", "o1")
        assert len(written) == 1
        api.registry.watches.end()
        assert (await watch.next_write()).startswith(b": ")
        assert chunks.is_closed


async def test_too_many_watches_are_refused(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MAX_WATCHES", 0)
    response = await api.request("GET", "/api/v1/watch")
    assert (response.status, response.headers["retry-after"]) == (503, "10")
