"""The access matrix: every operation of every dialect, by every kind of caller.

Each operation has a sample request about `orders` or an instance of it. The expected statuses follow from the action of
the operation alone. A new operation without a sample, and a new action without expected statuses, is reported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import pytest

from adsum.core.access.actions import ACCESS_RULES, Action
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.api.operation import ApiOperation
from adsum.dialects.native.api.operation_table import OPERATIONS
from tests.dialects.native.native_api import JSON, NativeApi
from tests.dialects.xds.streams.streams_world import StreamsWorld
from tests.support.fake_authority import FakeAuthority
from tests.support.fakes import run_until_idle
from tests.support.tokens import bearer, declare_invite, declare_token, make_token, revoke_token

SERVICE, EMPTIED = "orders", "orders-old"
"""A service with the instance o1, and one whose instance has left."""
INVITE, INVITE_SECRET = "0123456789abcdef", "i" * 43
"""The id and the secret of an invite."""
ROUTE: Final = {"hosts": ["orders.example.com"], "to": [{"service": SERVICE}]}

SCOPES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "read": ("read:orders*",),
        "write-other": ("write:users*",),
        "write-not-owner": ("write:orders*",),
        "write-owner": ("write:orders*",),
        "operate": ("operate:orders*",),
        "admin": ("admin",),
    }
)
"""Callers with a valid token → the scopes of the token."""
UNKNOWN: Final = ("none", "wrong", "expired", "revoked")
"""Callers that prove nothing."""
CALLERS: Final = (*UNKNOWN, *SCOPES)

OK: Final = 0
"""Stands for any status of success."""


def _expected(read: int, other: int, writer: int, owner: int, operate: int) -> Mapping[str, int]:
    """Returns the expected statuses by caller. Whoever proves nothing gets 401, and an admin may do everything."""
    known = (read, other, writer, owner, operate, OK)
    return MappingProxyType({**dict.fromkeys(UNKNOWN, 401), **dict(zip(SCOPES, known, strict=True))})


PUBLIC: Final = MappingProxyType(dict.fromkeys(CALLERS, OK))
VISIBLE: Final = _expected(OK, 404, OK, OK, OK)
"""A read of `orders`."""
LIMITED: Final = _expected(OK, OK, OK, OK, OK)
"""A read whose response is limited to what the caller sees."""
OWN: Final = _expected(403, 403, 403, OK, OK)
"""A change of an instance that `write-owner` has registered."""
OPERATED: Final = _expected(403, 403, 403, 403, OK)
WHOLE: Final = _expected(403, 403, 403, 403, 403)
"""Something that concerns the whole registry."""

EXPECTED: Final[Mapping[Action, Mapping[str, int]]] = MappingProxyType(
    {
        Action.READ: VISIBLE,
        Action.LIST: LIMITED,
        Action.WATCH: VISIBLE,
        Action.READ_HISTORY: VISIBLE,
        Action.REGISTER: OWN,
        Action.RENEW: OWN,
        Action.DEREGISTER: OWN,
        Action.OVERRIDE: OWN,
        Action.RESUME: OWN,
        Action.FORGET: OPERATED,
        Action.READ_INTENT: LIMITED,
        Action.DECLARE: OPERATED,
        Action.REPLACE_INTENT: WHOLE,
        Action.READ_EDITS: WHOLE,
        Action.ACKNOWLEDGE: LIMITED,
        Action.REPORT: LIMITED,
        Action.PROBE: PUBLIC,
        Action.READ_NODE: WHOLE,
        Action.FORWARD: WHOLE,
        Action.MANAGE_TOKENS: WHOLE,
        Action.JOIN: PUBLIC,
        Action.IDENTIFY: MappingProxyType({**LIMITED, "none": OK}),
        Action.CERTIFY: LIMITED,
    }
)


@dataclass(frozen=True)
class Sample:
    """A request of one operation. `exceptions`: callers that get another status than the action says, each with it."""

    method: str
    target: str
    body: object = None
    exceptions: Mapping[str, int] = field(default_factory=dict)


_O1 = f"/api/v1/services/{SERVICE}/instances/o1"
_ROUTES, _UPSTREAM = "/api/v1/routes/shop", f"/api/v1/upstreams/{SERVICE}"
_LOST = dict.fromkeys(("write-other", "write-not-owner"), OK)
"""A renewal of many leases names those that the caller may not renew as lost, and a request that registers many
instances answers each of them."""
_HIDDEN = {"write-other": 404}

SAMPLES: Final[Mapping[str, Sample]] = MappingProxyType(
    {
        "register": Sample("PUT", _O1, {"port": 81}),
        "register_many": Sample(
            "POST", "/api/v1/register", {"registrations": [{"service": SERVICE, "id": "o1", "port": 81}]}, _LOST
        ),
        "read_instance": Sample("GET", _O1),
        "deregister": Sample("DELETE", _O1),
        "renew": Sample("POST", f"{_O1}/renew"),
        "renew_many": Sample("POST", "/api/v1/renew", {"leases": [{"service": SERVICE, "id": "o1"}]}, _LOST),
        "override": Sample("PUT", f"{_O1}/override", {"status": "draining"}),
        "resume": Sample("DELETE", f"{_O1}/override"),
        "list_services": Sample("GET", "/api/v1/services"),
        "read_service": Sample("GET", f"/api/v1/services/{SERVICE}"),
        "forget": Sample("DELETE", f"/api/v1/services/{EMPTIED}"),
        "read_unacknowledged": Sample("GET", f"/api/v1/services/{SERVICE}/unacknowledged?revision=1"),
        "read_changes": Sample("GET", f"/api/v1/changes?service={SERVICE}"),
        "watch": Sample("GET", f"/api/v1/watch?service={SERVICE}"),
        "acknowledge": Sample("POST", "/api/v1/watches/{watch}/acknowledge", {"revision": 1}),
        "update_watch": Sample("POST", "/api/v1/watches/{watch}/services", {"join": [{"service": SERVICE}]}),
        "say_goodbye": Sample("DELETE", "/api/v1/consumers/someone"),
        "list_routes": Sample("GET", "/api/v1/routes"),
        "read_route": Sample("GET", _ROUTES, exceptions=_HIDDEN),
        "put_route": Sample("PUT", _ROUTES, {**ROUTE, "priority": 1}),
        "remove_route": Sample("DELETE", _ROUTES),
        "check_route": Sample("POST", "/api/v1/check-route", {"url": "http://orders.example.com/"}),
        "list_upstreams": Sample("GET", "/api/v1/upstreams"),
        "read_upstream": Sample("GET", _UPSTREAM, exceptions=_HIDDEN),
        "put_upstream": Sample("PUT", _UPSTREAM, {"policy": "maglev"}),
        "remove_upstream": Sample("DELETE", _UPSTREAM),
        "replace_intent": Sample("PUT", "/api/v1/intent", {"routes": [{"name": "shop", **ROUTE}]}),
        "read_edits": Sample("GET", "/api/v1/intent/history"),
        "read_status": Sample("GET", "/api/v1/status"),
        "openapi": Sample("GET", "/api/v1/openapi.json"),
        "docs": Sample("GET", "/docs"),
        "metrics": Sample("GET", "/metrics"),
        "healthz": Sample("GET", "/healthz"),
        "readyz": Sample("GET", "/readyz"),
        "home": Sample("GET", "/"),
        "list_tokens": Sample("GET", "/api/v1/tokens"),
        "create_token": Sample("POST", "/api/v1/tokens", {"name": "new", "scopes": ["read:*"]}),
        "read_token": Sample("GET", "/api/v1/tokens/read"),
        "rotate_token": Sample("POST", "/api/v1/tokens/read/rotate", {}),
        "revoke_token": Sample("DELETE", "/api/v1/tokens/read"),
        "list_invites": Sample("GET", "/api/v1/invites"),
        "create_invite": Sample("POST", "/api/v1/invites", {"role": "client"}),
        "revoke_invite": Sample("DELETE", f"/api/v1/invites/{INVITE}"),
        "join": Sample("POST", "/api/v1/join", {"invite": INVITE, "secret": INVITE_SECRET, "name": "new"}),
        "certify": Sample("POST", "/api/v1/certificate", {"certificate_request": "CSR"}),
        "read_authority": Sample("GET", "/api/v1/authority"),
        "read_caller": Sample("GET", "/api/v1/caller"),
    }
)


class Callers:
    """A secure registry with a token for each caller. `write-owner` has registered the instance `orders/o1`."""

    def __init__(self, api: NativeApi) -> None:
        self.api = api
        self._tokens: dict[str, str] = {}

    async def prepare(self) -> None:
        """Declares the tokens and the catalog."""
        registry = self.api.registry
        for name, scopes in SCOPES.items():
            self._tokens[name] = await declare_token(registry, name, *scopes)
        self._tokens["wrong"] = make_token("unheard-of")[1]
        self._tokens["expired"] = await declare_token(registry, "expired", "admin", expires=self.api.clock.wall() - 1)
        self._tokens["revoked"] = await declare_token(registry, "revoked", "admin")
        await revoke_token(registry, "revoked")
        await declare_invite(registry, INVITE, INVITE_SECRET, self.api.clock.wall() + 3600)
        for service, id in ((SERVICE, "o1"), (EMPTIED, "gone")):
            path = f"/api/v1/services/{service}/instances/{id}"
            await self._must("PUT", path, {"port": 80, "ttl": 10}, "write-owner")
        await self._must("DELETE", f"/api/v1/services/{EMPTIED}/instances/gone", None, "write-owner")
        await self._must("PUT", _ROUTES, ROUTE, "operate")
        await self._must("PUT", _UPSTREAM, {}, "operate")
        await self._must("PUT", f"{_O1}/override", {"status": "maintenance"}, "write-owner")

    async def _must(self, method: str, target: str, body: object, caller: str) -> None:
        answer = await self.api.request(method, target, body, self.headers(caller))
        assert answer.status < 300, answer.body

    def headers(self, caller: str) -> dict[str, str]:
        """Returns the headers with which a caller sends its requests."""
        return JSON | (bearer(self._tokens[caller]) if caller in self._tokens else {})

    async def status(self, sample: Sample, caller: str) -> int:
        """Returns the status of the response to a sample request."""
        if sample.target.startswith("/api/v1/watch?"):
            async with self.api.watch(sample.target.removeprefix("/api/v1/watch"), self.headers(caller)) as watch:
                await watch.next_write()
                return int(watch.start["status"])
        if "{watch}" in sample.target:
            return await self._use_watch(sample, caller)
        return (await self.api.request(sample.method, sample.target, sample.body, self.headers(caller))).status

    async def _use_watch(self, sample: Sample, caller: str) -> int:
        """Sends a request about a watch of the caller's own, or about one of the owner if the caller can open none."""
        opener = caller if caller in SCOPES else "write-owner"
        name = "users" if caller == "write-other" else SERVICE
        async with self.api.watch(f"?service={name}&acks=true", self.headers(opener)) as watch:
            token = (await watch.next_group())[0].data["watch"]
            target = sample.target.replace("{watch}", token)
            return (await self.api.request("POST", target, sample.body, self.headers(caller))).status


@pytest.fixture
async def callers() -> AsyncIterator[Callers]:
    api = NativeApi(anonymous=NO_SCOPES, authority=FakeAuthority())
    await api.registry.start()
    callers = Callers(api)
    await callers.prepare()
    yield callers
    await api.registry.stop()


def test_every_operation_has_a_sample_and_every_action_its_statuses() -> None:
    assert SAMPLES.keys() == {operation.name for operation in OPERATIONS}
    assert EXPECTED.keys() == ACCESS_RULES.keys() == set(Action)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_a_native_operation_answers_each_caller_as_its_action_says(
    callers: Callers, operation: ApiOperation, caller: str
) -> None:
    sample = SAMPLES[operation.name]
    wanted = sample.exceptions.get(caller, EXPECTED[operation.action][caller])
    before = callers.api.registry.snapshot
    status = await callers.status(sample, caller)
    if wanted == OK:
        assert status < 400
        return
    assert status == wanted
    assert_unchanged(callers.api, before)
    is_absent = operation.name == "read_route" and status == 404
    assert len(callers.api.refusals) == (0 if is_absent else 1), "every refusal is counted"


def assert_unchanged(api: NativeApi, before: Snapshot) -> None:
    """Asserts that a refused request has changed nothing: neither the catalog, nor documents, nor a lease."""
    assert api.registry.snapshot is before


GRPC_STATUSES: Final[Mapping[int, str]] = MappingProxyType({401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"})
GRPC_ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "DeltaAggregatedResources": Action.LIST,
        "StreamAggregatedResources": Action.LIST,
        "StreamLoadStats": Action.REPORT,
        "StreamMetrics": Action.REPORT,
    }
)
"""Method of xDS → an action with its statuses. What a stream of discovery sends is limited to what its caller sees."""


@pytest.mark.parametrize("caller", [*CALLERS, "no-rights"])
@pytest.mark.parametrize("method", GRPC_ACTIONS)
async def test_a_method_of_xds_admits_each_caller_as_its_action_says(method: str, caller: str) -> None:
    world = StreamsWorld(NO_SCOPES)
    await world.registry.start()
    await world.xds.start()
    await world.register("o1", SERVICE)
    tokens = {name: await world.declare(name, *scopes) for name, scopes in SCOPES.items()}
    tokens["wrong"] = make_token("unheard-of")[1]
    tokens["expired"] = await world.declare("expired", "admin", expires=world.clock.wall() - 1)
    tokens["revoked"] = await world.declare("revoked", "admin")
    tokens["no-rights"] = await world.declare("no-rights")
    await revoke_token(world.registry, "revoked")
    await world.settle()
    path = next(path for path in world.xds.methods if path.endswith(f"/{method}"))
    before = world.registry.snapshot
    call = world.call(tokens.get(caller, ""), path)
    await run_until_idle()
    wanted = 403 if caller == "no-rights" else EXPECTED[GRPC_ACTIONS[method]][caller]
    assert call.ended.partition(":")[0] == GRPC_STATUSES.get(wanted, "")
    assert len(world.refused) == (0 if wanted == OK else 1), "every refusal is counted"
    assert world.registry.snapshot is before
    await call.close()
    await world.xds.stop()
    await world.registry.stop()


def test_every_method_of_xds_is_in_the_matrix() -> None:
    assert {path.rpartition("/")[2] for path in StreamsWorld().xds.methods} == set(GRPC_ACTIONS)
