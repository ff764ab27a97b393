"""The calling integrations: one test suite for all HTTP libraries."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import pytest

from adsum.balance.picker import NoEndpoint
from adsum.client.calls.failures import CallFailed
from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.client import Client
from adsum.client.sources.source import ConnectionLost, ViewPosition
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.core.errors import Invalid
from adsum.core.model import Status
from adsum.integrations.request_options import request_options
from tests.client.fakes import ScriptedSource, endpoint, full_update
from tests.client.stub_node import until
from tests.integrations.callers import in_flight, options
from tests.integrations.conftest import Make, instance
from tests.integrations.servers import HERE, Fleet, ServerBehaviour, server_tls_context

URL = "http://orders/path?of=this"


async def test_round_robin_reaches_all_instances(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name) for name in "abc"]
    caller = make(*(instance(server.name, server.port) for server in servers))
    answers = [await caller.call("GET", URL) for _ in range(9)]
    assert sorted(answer.text for answer in answers) == sorted("abc" * 3)
    assert {answer.status for answer in answers} == {200}


async def test_path_query_headers_and_body_arrive_and_the_host_is_the_service(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a")
    caller = make(instance("a", server.port))
    answer = await caller.call("POST", "http://orders/a%2Fb//c?q=1%202&q=", b"body", {"X-Own": "7"})
    request = server.requests[0]
    assert (request.method, request.target, request.body) == ("POST", "/a%2Fb//c?q=1%202&q=", b"body")
    assert (request.headers["host"], request.headers["x-own"]) == ("orders", "7")
    assert answer.url == "http://orders/a%2Fb//c?q=1%202&q=", "the response is the service's"


async def test_an_explicit_host_header_is_kept(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a")
    await make(instance("a", server.port)).call("GET", URL, None, {"Host": "shop.example"})
    assert server.requests[0].headers["host"] == "shop.example"


async def test_a_redirect_goes_to_the_service_and_not_to_the_instance(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name, ServerBehaviour.REDIRECT) for name in "ab"]
    caller = make(*(instance(server.name, server.port) for server in servers))
    answer = await caller.call("GET", URL)
    assert (answer.status, answer.url) == (200, "http://orders/there")
    assert {request.target for server in servers for request in server.requests} == {"/path?of=this", "/there"}
    assert [len(server.requests) for server in servers] == [1, 1]


async def test_a_dead_instance_fails_no_request(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name) for name in "ab"]
    caller = make(*(instance(server.name, server.port) for server in servers), instance("dead", fleet.refuse()))
    answers = [await caller.call("GET", URL) for _ in range(12)]
    posted = [await caller.call("POST", URL, b"once") for _ in range(12)]
    assert {answer.status for answer in (*answers, *posted)} == {200}
    assert fleet.request_count == 24


@pytest.mark.parametrize("behaviour", [ServerBehaviour.RESET, ServerBehaviour.VANISH, ServerBehaviour.GARBAGE])
async def test_a_request_that_broke_after_sending_is_retried_if_that_is_safe(
    make: Make, fleet: Fleet, behaviour: ServerBehaviour, ends: list[tuple[str, bool]]
) -> None:
    bad, good = fleet.add("bad", behaviour), fleet.add("good")
    caller = make(instance("bad", bad.port), instance("good", good.port))
    assert [(await caller.call("GET", URL)).text for _ in range(4)] == ["good"] * 4
    assert ("bad", False) in ends
    assert ("good", True) in ends


@pytest.mark.parametrize("behaviour", [ServerBehaviour.RESET, ServerBehaviour.VANISH, ServerBehaviour.GARBAGE])
async def test_an_unsafe_request_that_was_sent_is_not_retried(
    make: Make, fleet: Fleet, behaviour: ServerBehaviour
) -> None:
    servers = [fleet.add(name, behaviour) for name in "ab"]
    caller = make(*(instance(server.name, server.port) for server in servers))
    with pytest.raises(caller.broken, match="may have taken effect") as caught:
        await caller.call("POST", URL, b"pay")
    assert isinstance(caught.value, caller.transport_error)
    assert isinstance(caught.value, CallFailed)
    assert caught.value.__cause__ is not None, "the library's own error is the cause"
    assert fleet.request_count == 1


async def test_an_unsafe_request_is_retried_if_declared_idempotent(make: Make, fleet: Fleet) -> None:
    bad, good = fleet.add("bad", ServerBehaviour.RESET), fleet.add("good")
    caller = make(instance("bad", bad.port), instance("good", good.port))
    with request_options(idempotent=True):
        assert [(await caller.call("POST", URL, b"keyed")).text for _ in range(2)] == ["good"] * 2
    assert good.requests[0].body == b"keyed"


async def test_a_503_is_retried_elsewhere_if_that_is_safe_and_returned_if_not(make: Make, fleet: Fleet) -> None:
    away, good = fleet.add("away", ServerBehaviour.UNAVAILABLE), fleet.add("good")
    caller = make(instance("away", away.port), instance("good", good.port))
    assert {(await caller.call("GET", URL)).status for _ in range(4)} == {200}
    posted = [await caller.call("POST", URL, b"once") for _ in range(2)]
    assert sorted(answer.status for answer in posted) == [200, 503]
    assert next(answer for answer in posted if answer.status == 503).headers["Retry-After"] == "7"


async def test_the_last_503_is_returned(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name, ServerBehaviour.UNAVAILABLE) for name in "ab"]
    caller = make(*(instance(server.name, server.port) for server in servers))
    with request_options(tries=2):
        answer = await caller.call("GET", URL)
    assert (answer.status, answer.text) == (503, "away")
    assert fleet.request_count == 2


async def test_a_try_that_times_out_is_retried_elsewhere(make: Make, fleet: Fleet) -> None:
    slow, good = fleet.add("slow", ServerBehaviour.HANG), fleet.add("good")
    caller = make(instance("slow", slow.port), instance("good", good.port))
    with request_options(try_timeout=0.2):
        assert [(await caller.call("GET", URL)).text for _ in range(2)] == ["good"] * 2
    assert slow.requests


async def test_an_unsafe_request_that_times_out_is_not_retried(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name, ServerBehaviour.HANG) for name in "ab"]
    caller = make(*(instance(server.name, server.port) for server in servers))
    with request_options(try_timeout=0.1), pytest.raises(caller.timed_out, match="may have taken effect") as caught:
        await caller.call("POST", URL, b"pay")
    assert isinstance(caught.value, caller.timeout_error)
    assert fleet.request_count == 1


async def test_the_deadline_ends_the_call_whatever_tries_are_left(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name, ServerBehaviour.HANG) for name in "abc"]
    endpoints = [instance(server.name, server.port) for server in servers]
    caller = make(*endpoints)
    started_at = time.monotonic()
    with request_options(tries=50, try_timeout=0.1, deadline=0.35), pytest.raises(caller.timed_out) as caught:
        await caller.call("GET", URL)
    assert time.monotonic() - started_at < 5.0
    assert "its deadline of 350 ms has passed" in str(caught.value) or "0.35" in str(caught.value)
    assert 1 < len(caught.value.tries) < 10
    assert in_flight(caller.channel(), *endpoints) == 0


@pytest.mark.parametrize("behaviour", [ServerBehaviour.DRIP, ServerBehaviour.STALL])
async def test_the_deadline_holds_for_the_body_too(make: Make, fleet: Fleet, behaviour: ServerBehaviour) -> None:
    server = fleet.add("slow", behaviour)
    caller = make(instance("slow", server.port))
    started_at = time.monotonic()
    with request_options(deadline=0.4), pytest.raises(caller.timed_out, match="not read to the end"):
        await caller.call("GET", URL)
    assert time.monotonic() - started_at < 10.0
    assert in_flight(caller.channel(), instance("slow", server.port)) == 0


async def test_a_broken_body_counts_against_the_endpoint_and_raises_the_librarys_error(
    make: Make, fleet: Fleet, ends: list[tuple[str, bool]]
) -> None:
    server = fleet.add("a", ServerBehaviour.DIE)
    caller = make(instance("a", server.port))
    with pytest.raises(caller.broken_body):
        await caller.call("GET", URL)
    assert ends == [("a", False)]
    assert len(server.requests) == 1, "a response that has begun is not requested again"


async def test_a_streamed_answer_is_in_flight_until_it_is_closed(
    make: Make, fleet: Fleet, ends: list[tuple[str, bool]]
) -> None:
    server = fleet.add("a", ServerBehaviour.STALL)
    server_endpoint = instance("a", server.port)
    caller = make(server_endpoint)
    opened = await caller.stream(URL)
    assert in_flight(caller.channel(), server_endpoint) == 1
    await opened.close()
    assert in_flight(caller.channel(), server_endpoint) == 0
    assert ends == [("a", True)], "closing early does not count against the endpoint"


async def test_a_slow_response_without_a_deadline_is_awaited(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a", ServerBehaviour.SLOWLY)
    caller = make(instance("a", server.port))
    called = asyncio.create_task(caller.call("GET", URL))
    await asyncio.to_thread(fleet.until, lambda: bool(server.requests), "the request arrived")
    assert in_flight(caller.channel(), instance("a", server.port)) == 1
    fleet.continue_body(server)
    assert len((await called).text) == 40_000
    assert in_flight(caller.channel(), instance("a", server.port)) == 0


@pytest.mark.parametrize("behaviour", [ServerBehaviour.HANG, ServerBehaviour.STALL])
async def test_cancelling_closes_the_pick_and_the_connection(
    make: Make, fleet: Fleet, behaviour: ServerBehaviour, ends: list[tuple[str, bool]]
) -> None:
    server = fleet.add("a", behaviour)
    server_endpoint = instance("a", server.port)
    caller = make(server_endpoint)
    if caller.blocks:
        pytest.skip("a thread that waits can't be cancelled")
    called = asyncio.create_task(caller.call("GET", URL))
    await asyncio.to_thread(fleet.until, lambda: bool(server.requests), "the request arrived")
    await asyncio.sleep(0.05)
    called.cancel()
    with pytest.raises(asyncio.CancelledError):
        await called
    assert in_flight(caller.channel(), server_endpoint) == 0
    assert ("a", False) not in ends, "a cancelled call does not count against the endpoint"
    await asyncio.to_thread(fleet.until, lambda: server.open == 0, "the connection is closed")
    gc.collect()


async def test_a_hash_key_sticks_to_its_instance(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name) for name in "abc"]
    caller = make(*(instance(server.name, server.port) for server in servers), channel=options("maglev"))
    seen = set()
    for user in ("ann", "ben", "cid", "dan", "eve", "flo", "gus", "hal"):
        with request_options(hash_key=user):
            answers = {(await caller.call("GET", URL)).text for _ in range(3)}
        assert len(answers) == 1
        seen |= answers
    assert len(seen) > 1


async def test_a_hash_key_can_be_derived_from_the_request(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name) for name in "abc"]
    endpoints = [instance(server.name, server.port) for server in servers]
    caller = make(*endpoints, channel=options("maglev"), hash_key=lambda request: request.headers["X-User"])
    for user in ("ann", "ben", "cid", "dan"):
        assert len({(await caller.call("GET", URL, None, {"X-User": user})).text for _ in range(3)}) == 1


async def test_a_one_shot_body_is_retried_only_if_nothing_was_sent(make: Make, fleet: Fleet) -> None:
    good = fleet.add("good")
    caller = make(instance("dead", fleet.refuse()), instance("good", good.port))
    assert [(await caller.upload("PUT", URL, [b"a", b"b"])).text for _ in range(2)] == ["good"] * 2
    assert [request.body for request in good.requests] == [b"ab", b"ab"]
    resets = [fleet.add(name, ServerBehaviour.RESET) for name in "xy"]
    caller = make(*(instance(server.name, server.port) for server in resets))
    with pytest.raises(caller.broken):
        await caller.upload("PUT", URL, [b"a", b"b"])
    assert sum(len(server.requests) for server in resets) <= 1


async def test_hosts_that_are_addresses_go_to_the_library(make: Make, fleet: Fleet) -> None:
    machine = fleet.add("machine")
    caller = make(endpoint("nobody"))
    for host in (HERE, "localhost"):
        assert (await caller.call("GET", f"http://{host}:{machine.port}/")).text == "machine"
    with pytest.raises(Exception) as caught:
        await caller.call("GET", "http://orders.invalid/")
    assert not isinstance(caught.value, CallFailed | NoEndpoint)


async def test_a_url_with_a_port_addresses_a_machine(make: Make, fleet: Fleet) -> None:
    caller = make(endpoint("nobody"))
    with pytest.raises(caller.transport_error) as caught:
        await caller.call("GET", "http://orders:8123/")
    assert not isinstance(caught.value, CallFailed | NoEndpoint)


async def test_only_the_services_named_by_the_option_are_services(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a")
    caller = make(instance("a", server.port), services={"orders"})
    assert (await caller.call("GET", URL)).text == "a"
    with pytest.raises(caller.transport_error) as caught:
        await caller.call("GET", "http://other-service-that-no-name-server-knows/")
    assert not isinstance(caught.value, CallFailed | NoEndpoint)


async def test_with_a_suffix_only_hosts_with_it_are_services(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a")
    caller = make(instance("a", server.port), suffix=".adsum")
    assert (await caller.call("GET", "http://orders.adsum/")).text == "a"
    assert server.requests[0].headers["host"] == "orders.adsum"


async def test_a_failure_names_the_service_each_try_and_its_reason(make: Make, fleet: Fleet) -> None:
    ports = [fleet.refuse() for _ in range(2)]
    caller = make(*(instance(f"i{n}", port) for n, port in enumerate(ports)))
    with request_options(tries=2), pytest.raises(caller.unreachable) as caught:
        await caller.call("GET", URL)
    text = str(caught.value)
    assert text.startswith("orders: no answer after 2 tries: ")
    for n, port in enumerate(ports):
        assert f"{HERE}:{port} (i{n}): " in text
    assert "it may be tried 2 times at most" in text
    assert isinstance(caught.value, caller.transport_error)
    assert caught.value.service == "orders"


async def test_a_service_without_instances_raises_the_librarys_error_at_once(make: Make) -> None:
    caller = make(endpoint("gone", Status.DRAINING))
    with pytest.raises(caller.no_endpoint, match="none of 1 is usable \\(1 draining\\)") as caught:
        await caller.call("GET", URL)
    assert isinstance(caught.value, NoEndpoint)
    assert isinstance(caught.value, caller.transport_error)


async def test_the_first_call_waits_until_the_service_is_known(make: Make) -> None:
    caller = make(source=ScriptedSource(), ready_timeout=0.05)
    with pytest.raises(caller.no_endpoint, match="no view has arrived yet"):
        await caller.call("GET", URL)


async def test_the_first_call_prefers_the_registry_to_the_disk(make: Make, fleet: Fleet, tmp_path: Path) -> None:
    drained, server_endpoint = fleet.add("drained"), fleet.add("there")
    cached = CachedView(ViewPosition("e1", 4), (instance("drained", drained.port),), time.time() - 5.0)
    ViewCache(tmp_path, Client(cache=False).urls).save("orders", cached)
    source = ScriptedSource()
    caller = make(source=source, cache=tmp_path)
    calling = asyncio.create_task(caller.call("POST", URL, b"once"))
    await until(lambda: source.open_watches == 1)
    source.emit(full_update(9, instance("there", server_endpoint.port)))
    assert (await calling).text == "there"
    assert drained.requests == []


async def test_the_first_call_uses_the_disk_when_no_registry_can_be_reached(
    make: Make, fleet: Fleet, tmp_path: Path
) -> None:
    server = fleet.add("kept")
    cached = CachedView(ViewPosition("e1", 4), (instance("kept", server.port),), time.time() - 5.0)
    ViewCache(tmp_path, Client(cache=False).urls).save("orders", cached)
    source = ScriptedSource()
    source.emit(ConnectionLost("connection refused"))
    assert (await make(source=source, cache=tmp_path).call("GET", URL)).text == "kept"
    silent = make(source=ScriptedSource(), cache=tmp_path)
    assert (await silent.call("GET", URL)).text == "kept"


async def test_unknown_or_wrong_request_options_are_refused(make: Make) -> None:
    caller = make(endpoint("a"))
    with pytest.raises(Invalid, match=r"adsum\.retries: is not a request option"), request_options(retries=3):
        pass
    with request_options(tries=0), pytest.raises(Invalid, match="tries"):
        await caller.call("GET", URL)
    with pytest.raises(TypeError):
        make(endpoint("a"), polcy="x")


async def test_the_channels_call_options_hold_for_every_call(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name, ServerBehaviour.RESET) for name in "abc"]
    given = ChannelOptions(outliers=None, calls=CallOptions(tries=1))
    caller = make(*(instance(server.name, server.port) for server in servers), channel=given)
    with pytest.raises(caller.broken, match="it may be tried only once"):
        await caller.call("GET", URL)
    assert fleet.request_count == 1


async def test_an_https_request_is_never_sent_unencrypted(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a")
    caller = make(instance("a", server.port))
    with pytest.raises(
        caller.unreachable, match="the instance speaks http and the request asks for https, so nothing was sent"
    ):
        await caller.call("GET", "https://orders/secret")
    assert server.requests == []


async def test_an_https_instance_must_have_a_certificate_for_the_requested_name(make: Make, fleet: Fleet) -> None:
    server = fleet.add("a", tls=server_tls_context())
    server_endpoint = instance("a", server.port, scheme="https")
    caller = make(server_endpoint, trust=True, server_name=lambda endpoint: "instance.test")
    answers = [await caller.call("GET", url) for url in (URL, "https://orders/there")]
    assert [answer.text for answer in answers] == ["a", "a"]
    assert answers[0].url == URL, "the URL keeps the scheme of the request"
    assert {request.headers["host"] for request in server.requests} == {"orders"}
    assert set(server.server_names) == {"instance.test"}
    server.requests.clear()
    server.server_names.clear()
    with pytest.raises(make(server_endpoint, trust=True).unreachable, match=r"(?i)certificate|hostname"):
        await make(server_endpoint, trust=True).call("POST", URL, b"secret")
    assert server.requests == []
    assert set(server.server_names) == {"orders"}, "by default a certificate is for the service's name"


async def test_an_instance_of_another_protocol_is_not_called(make: Make, fleet: Fleet) -> None:
    server, other = fleet.add("a"), fleet.add("other")
    caller = make(instance("a", server.port), instance("b", other.port, scheme="grpc"))
    assert [(await caller.call("POST", URL, b"x")).text for _ in range(4)] == ["a"] * 4
    assert other.requests == []


async def test_many_calls_at_once_leave_nothing_in_flight(make: Make, fleet: Fleet) -> None:
    servers = [fleet.add(name) for name in "abc"] + [fleet.add("bad", ServerBehaviour.RESET)]
    endpoints = [instance(server.name, server.port) for server in servers]
    given = ChannelOptions(policy="round_robin", outliers=None, retry_ratio=1.0, retry_floor=1_000.0)
    caller = make(*endpoints, channel=given)
    answers = await asyncio.gather(*(caller.call("GET", URL) for _ in range(80)))
    assert {answer.status for answer in answers} == {200}
    assert in_flight(caller.channel(), *endpoints) == 0
