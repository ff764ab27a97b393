"""Requests succeed whatever instances do, as long as one of them works."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.sync import SyncClient
from adsum.integrations.requests import RequestsSession
from tests.client.fakes import ScriptedSource, full_update
from tests.integrations.callers import CALLERS, in_flight
from tests.integrations.conftest import instance
from tests.integrations.servers import Fleet, ServerBehaviour

BAD = st.sampled_from(
    [
        ServerBehaviour.RESET,
        ServerBehaviour.VANISH,
        ServerBehaviour.GARBAGE,
        ServerBehaviour.UNAVAILABLE,
        ServerBehaviour.HANG,
        None,
    ]
)
CALLS = CallOptions(tries=6, try_timeout=0.3)
PATIENT = ChannelOptions(outliers=None, retry_ratio=10.0, retry_floor=1_000.0, calls=CALLS)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(library=st.sampled_from(sorted(CALLERS)), behaviours=st.lists(BAD, min_size=1, max_size=3))
async def test_a_safe_request_is_answered_while_one_instance_works(
    fleet: Fleet, library: str, behaviours: list[ServerBehaviour | None]
) -> None:
    servers = [fleet.add(f"bad{n}", behaviour) for n, behaviour in enumerate(behaviours) if behaviour is not None]
    servers.append(fleet.add("well"))
    endpoints = [instance(server.name, server.port) for server in servers]
    endpoints += [instance(f"dead{n}", fleet.refuse()) for n, behaviour in enumerate(behaviours) if behaviour is None]
    source = ScriptedSource()
    source.emit(full_update(1, *endpoints))
    caller = CALLERS[library](source, channel=PATIENT)
    try:
        answers = await asyncio.gather(*(caller.call("GET", "http://orders/") for _ in range(4)))
        assert [answer.text for answer in answers] == ["well"] * 4
        assert in_flight(caller.channel(), *endpoints) == 0
    finally:
        await caller.close()


def test_one_session_serves_many_threads(fleet: Fleet) -> None:
    servers = [fleet.add(name) for name in "abc"] + [fleet.add("bad", ServerBehaviour.RESET)]
    endpoints = [instance(server.name, server.port) for server in servers]
    source = ScriptedSource()
    source.emit(full_update(1, *endpoints))
    with SyncClient(source=source, cache=False) as client, RequestsSession(client, channel=PATIENT) as http:

        def get(_: int) -> requests.Response:
            return http.get("http://orders/")

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(get, range(200)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.text for answer in answers} == {"a", "b", "c"}
        assert in_flight(client.channel("orders", PATIENT).open(), *endpoints) == 0
