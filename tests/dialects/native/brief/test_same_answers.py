"""The fast path answers as the application does: the same responses, counts and changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsum.core.access.scopes import NO_SCOPES
from adsum.core.model import Key, Listing
from adsum.dialects.native.api.openapi import openapi_document
from adsum.dialects.native.operations import node
from tests.dialects.native.native_api import JSON, NativeApi
from tests.support.fakes import FakeSharding, run_until_idle
from tests.support.tokens import bearer, declare_token, make_token, revoke_token

BASE = "/api/v1/services"


@pytest.fixture(scope="module", autouse=True)
def one_document() -> Iterator[None]:
    """Makes the OpenAPI document once, and not for each of hundreds of registries."""
    document = openapi_document()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "openapi_document", lambda: document)
        yield


class Step(NamedTuple):
    """A request; or, without a method, the name of a token that is revoked."""

    method: str
    target: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


WRONG_TOKEN = "adsum_0000000000000000_" + "x" * 43
CALLERS: list[Mapping[str, str]] = [
    bearer(make_token(name)[1]) for name in ("admin", "team-a", "team-b", "reader", "expired")
]
HEADERS = st.builds(
    lambda caller, kind, more: tuple({**caller, **kind, **more}.items()),
    st.sampled_from([*CALLERS[:2], *CALLERS[:2], *CALLERS, {}, bearer(WRONG_TOKEN), {"authorization": "Basic eDp5"}]),
    st.sampled_from(
        [JSON, JSON, JSON, {}, {"content-type": "Application/JSON; charset=utf-8"}, {"content-type": "a/b"}]
    ),
    st.sampled_from(
        [
            {},
            {},
            {"adsum-actor": "deploy"},
            {"adsum-actor": "b\xc3\xbcro"},
            {"adsum-actor": "a\x01"},
            {"if-none-match": '"e1-9"'},
            {"if-none-match": "*"},
            {"adsum-forwarded-to": "n2"},
        ]
    ),
)
SERVICES = st.sampled_from(["orders", "orders", "users", "Nobody", "unkept"])
IDS = st.sampled_from(["i1", "i2", "i%31", "-", "i1/x"])
BODIES = st.sampled_from(
    [
        b'{"port": 80}',
        b'{"port": 80}',
        b'{"port": 80, "ttl": 10, "holder": "h1", "tags": ["a"], "metadata": {"a": "b:c"}}',
        b'{"port": 80, "ttl": 10, "holder": "h2", "address": "10.9.9.9"}',
        b'{"port": 81, "address": "10.9.9.9", "takeover": "force", "holder": "h3"}',
        b'{"port": 81, "address": "10.9.9.9", "takeover": "never", "holder": "h4"}',
        b'{"port": 80, "checks": [{"name": "c", "kind": "tcp"}]}',
        b'{"port": 80, "port": 80}',
        b'{"port": 0}',
        b'{"port": 80, "prot": 1}',
        b"",
        b"[",
        b"\xff",
        b'{"port": 80, "metadata": {"x": "' + b"y" * 70_000 + b'"}}',
    ]
)
RENEW_BODIES = st.sampled_from(
    [
        b'{"leases": [{"service": "orders", "id": "i1"}]}',
        b'{"leases": [{"service": "orders", "id": "i1", "holder": "h1"}, {"service": "users", "id": "i1"}]}',
        b'{"leases": [{"service": "unkept", "id": "i1"}, {"service": "orders", "id": "i1"}]}',
        b'{"leases": []}',
        b'{"leases": [{"service": "Orders", "id": "i1"}]}',
        b"{}",
    ]
)
REGISTRATIONS = st.builds(
    lambda s, i, b, h: Step("PUT", f"{BASE}/{s}/instances/{i}", b, h), SERVICES, IDS, BODIES, HEADERS
)
RENEWALS = st.builds(
    lambda method, s, i, query, body, h: Step(method, f"{BASE}/{s}/instances/{i}/renew{query}", body, h),
    st.sampled_from(["POST", "POST", "POST", "PUT"]),
    SERVICES,
    IDS,
    st.sampled_from(["", "", "?holder=h1", "?holder=", "?holder=%68", "?holder=h1&holder=h1", "?", "?x=1"]),
    st.sampled_from([b"", b"", b"x"]),
    HEADERS,
)
BATCHES = st.builds(lambda body, h: Step("POST", "/api/v1/renew", body, h), RENEW_BODIES, HEADERS)
READS = st.builds(
    lambda path, h: Step("GET", BASE + path, b"", h),
    st.sampled_from(["/orders", "/orders", "/users", "/nowhere", "", "/orders?tag=a", "/orders/instances/i1"]),
    HEADERS,
)
REMOVALS = st.builds(lambda s, h: Step("DELETE", f"{BASE}/{s}/instances/i1", b"", h), SERVICES, HEADERS)
REVOCATIONS = st.builds(lambda name: Step("", name), st.sampled_from(["team-a", "team-b", "reader"]))
STEPS = st.lists(
    st.one_of(REGISTRATIONS, REGISTRATIONS, RENEWALS, BATCHES, READS, REMOVALS, REVOCATIONS), min_size=1, max_size=12
)
MINE = tuple({**CALLERS[1], **JSON}.items())


class ComparedApi:
    """One of two registries that get the same steps. It counts the requests that the fast path answers."""

    def __init__(self, *, is_fast: bool) -> None:
        self.api = NativeApi(sharding=FakeSharding("orders", "users"), anonymous=NO_SCOPES)
        self._is_fast = is_fast
        self.fast_answers = 0

    async def run(self, steps: list[Step]) -> list[Any]:
        """Takes the steps. Returns everything that must not depend on the fast path."""
        api = self.api
        api.keeper.is_reachable = _is_reachable  # type: ignore[method-assign]
        await api.registry.start()
        await declare_token(api.registry, "admin", "admin")
        await declare_token(api.registry, "team-a", "write:orders", "write:unkept")
        await declare_token(api.registry, "team-b", "write:users", "write:orders")
        await declare_token(api.registry, "reader", "read:orders")
        await declare_token(api.registry, "expired", "admin", expires=api.clock.wall() - 1)
        responses = [await self._take(step) for step in steps]
        state = [
            responses,
            api.observer.answers,
            [(name, repr(error)) for name, error in api.observer.refusals],
            api.refusals,
            api.access.last_used,
            api.store.changes,
            {
                key: api.keeper.leases.deadline(key)
                for key in (Key(service, id) for service in ("orders", "users", "unkept") for id in ("i1", "i2"))
            },
        ]
        await api.registry.stop()
        return state

    async def _take(self, step: Step) -> object:
        if not step.method:
            await revoke_token(self.api.registry, step.target)
            return None
        headers = [(name.encode(), value.encode("latin-1")) for name, value in step.headers]
        if self._is_fast:
            replies = self.api.answers(step.method, step.target.encode(), step.body, headers)
            if replies is not None:
                await run_until_idle()
                ((status, text),) = replies
                if status:
                    self.fast_answers += 1
                    head, _, body = text.partition(b"\r\n\r\n")
                    return status, sorted(tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")), body
        task = asyncio.ensure_future(self.api.request(step.method, step.target, step.body, dict(step.headers)))
        while not task.done():
            await run_until_idle()
            await self.api.clock.advance(1.0) if not task.done() else None
        response = task.result()
        return response.status, sorted(response.headers.items()), response.body


async def _is_reachable(listing: Listing) -> bool:
    return listing.key.id == "i1"


def _compare(steps: list[Step]) -> int:
    """Compares both ways. Returns how many requests the fast path has answered."""
    fast, slow = ComparedApi(is_fast=True), ComparedApi(is_fast=False)
    assert asyncio.run(fast.run(steps)) == asyncio.run(slow.run(steps))
    return fast.fast_answers


@given(STEPS)
@settings(max_examples=300, deadline=None)
@example([Step("PUT", f"{BASE}/orders/instances/i1", b'{"port": 80, "ttl": 10}', MINE)] * 2)
@example([Step("PUT", f"{BASE}/unkept/instances/i1", b'{"port": 80, "ttl": 10}', MINE)] * 2)
def test_the_fast_path_answers_as_the_application_does(steps: list[Step]) -> None:
    _compare(steps)


def test_the_usual_requests_of_a_program_are_answered_by_the_fast_path() -> None:
    register = Step("PUT", f"{BASE}/orders/instances/i1", b'{"port": 80, "ttl": 10, "holder": "h1"}', MINE)
    usual = [
        register,
        register,
        Step("POST", f"{BASE}/orders/instances/i1/renew", b"", MINE),
        Step("POST", f"{BASE}/orders/instances/i1/renew?holder=h1", b"", MINE),
        Step("POST", "/api/v1/renew", b'{"leases": [{"service": "orders", "id": "i1", "holder": "h1"}]}', MINE),
        Step("GET", f"{BASE}/orders", b"", MINE),
    ]
    assert _compare(usual) == len(usual)


THEIRS = tuple({**CALLERS[2], **JSON}.items())
FORWARDED = tuple({**CALLERS[0], **JSON, "adsum-forwarded-to": "n2"}.items())
REGISTER = Step("PUT", f"{BASE}/orders/instances/i1", b'{"port": 80, "ttl": 10}', MINE)
TEXT = tuple({**CALLERS[1], "content-type": "text/plain"}.items())
REGISTER_UNKEPT = Step("PUT", f"{BASE}/unkept/instances/i1", b'{"port": 80, "ttl": 10}', MINE)
RENEW_BODY = b'{"leases": [{"service": "orders", "id": "i1"}]}'


@pytest.mark.parametrize(
    ("first", "second", "answered"),
    [
        (REGISTER, Step("POST", f"{BASE}/orders/instances/i1/renew", b"", THEIRS), 1),
        (REGISTER, Step("POST", "/api/v1/renew", RENEW_BODY, THEIRS), 2),
        (REGISTER, Step("POST", "/api/v1/renew", RENEW_BODY, FORWARDED), 1),
        (REGISTER, Step("PUT", f"{BASE}/orders/instances/i1", b'{"port": 81}', THEIRS), 2),
        (REGISTER, Step("PUT", f"{BASE}/users/instances/i1", b'{"port": 81}', MINE), 1),
        (REGISTER, Step("POST", f"{BASE}/orders/instances/i2/renew", b"", MINE), 1),
        (REGISTER, Step("POST", f"{BASE}/orders/instances/i1/renew?holder=h2", b"", MINE), 1),
        (REGISTER, Step("GET", f"{BASE}/users", b"", MINE), 1),
        (REGISTER_UNKEPT, Step("POST", f"{BASE}/unkept/instances/i1/renew", b"", MINE), 1),
        (REGISTER_UNKEPT, Step("POST", "/api/v1/renew", RENEW_BODY.replace(b"orders", b"unkept"), MINE), 1),
        (REGISTER_UNKEPT, REGISTER_UNKEPT, 1),
        (REGISTER, Step("PUT", REGISTER.target, REGISTER.body, TEXT), 1),
        (REGISTER, Step("PUT", REGISTER.target, REGISTER.body, TEXT[:1]), 1),
        (REGISTER, Step("POST", "/api/v1/renew", RENEW_BODY, TEXT), 1),
    ],
)
def test_what_another_caller_or_another_node_may_do_is_answered_alike(first: Step, second: Step, answered: int) -> None:
    assert _compare([first, second]) == answered


def test_revoked_rights_end_at_once() -> None:
    renew = Step("POST", f"{BASE}/orders/instances/i1/renew", b"", MINE)
    register = Step("PUT", f"{BASE}/orders/instances/i1", b'{"port": 80, "ttl": 10}', MINE)
    assert _compare([register, renew, Step("", "team-a"), renew, register]) == 2
