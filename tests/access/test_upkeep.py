"""The upkeep of tokens: the day of their last use, and the removal of expired ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials
from adsum.access.token_declarations import EXPIRED_TOKEN_KEPT, find_token
from adsum.access.upkeep import DAY, UPKEEP_INTERVAL, TokenUpkeep
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.catalog.documents import ACCESS_KINDS, DocumentKind
from adsum.registry import Registry
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver
from tests.support.tokens import declare_token, revoke_token


class OneCertificate:
    """Takes every certificate for one principal."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def identify(self, certificate: bytes) -> Principal:
        return self._principal


class TokenNode:
    """A registry with access control and upkeep."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = FakeStore()
        self.registry = Registry(self.store, self.clock, RecordingObserver())
        self.access = AccessControl(self.registry, self.clock, NO_SCOPES, lambda operation, reason: None)
        self.upkeep = TokenUpkeep(self.registry, self.access, self.clock)

    def used(self, name: str) -> float:
        """Returns the recorded day of the last use."""
        return find_token(self.registry.snapshot.documents, name).used


@pytest.fixture
async def node() -> AsyncIterator[TokenNode]:
    node = TokenNode()
    await node.registry.start()
    node.upkeep.start()
    yield node
    await node.upkeep.stop()
    await node.upkeep.stop()
    await node.registry.stop()


async def test_a_use_is_recorded_within_a_minute_as_a_day_and_once_a_day(node: TokenNode) -> None:
    token = await declare_token(node.registry, "web", "read:*")
    await declare_token(node.registry, "idle", "read:*")
    began = node.registry.snapshot.revision
    node.access.identify(Credentials(token))
    day = node.clock.wall() // DAY * DAY
    await node.clock.advance(UPKEEP_INTERVAL)
    assert (node.used("web"), node.used("idle"), node.registry.snapshot.revision) == (day, 0.0, began + 1)
    for _ in range(20):
        node.access.identify(Credentials(token))
        await node.clock.advance(UPKEEP_INTERVAL)
    assert node.registry.snapshot.revision == began + 1
    await node.clock.advance(DAY)
    node.access.identify(Credentials(token))
    await node.clock.advance(UPKEEP_INTERVAL)
    assert (node.used("web"), node.registry.snapshot.revision) == (day + DAY, began + 2)
    assert [edit.key.name for edit in await node.registry.edits(ACCESS_KINDS, None, 9)] == ["idle", "web"]


async def test_a_recorded_use_ends_no_session(node: TokenNode) -> None:
    token = await declare_token(node.registry, "web", "read:*")
    principal = node.access.identify(Credentials(token))
    ended: list[str] = []
    with node.access.session(principal, lambda: ended.append("web")):
        await node.clock.advance(UPKEEP_INTERVAL)
        node.access.refresh()
        assert (node.used("web") > 0, ended) == (True, [])
        assert node.access.identify(Credentials(token)) is principal


async def test_a_token_with_an_open_stream_is_in_use(node: TokenNode) -> None:
    principal = node.access.identify(Credentials(await declare_token(node.registry, "web", "read:*")))
    with (
        node.access.session(principal, lambda: None),
        node.access.session(node.access.anonymous, lambda: None),
    ):
        node.clock.jump(3 * DAY)
        await node.clock.advance(UPKEEP_INTERVAL)
    assert node.used("web") == node.clock.wall() // DAY * DAY
    assert list(node.access.last_used) == [principal.token_id], "callers without a token have no last use"


async def test_a_token_that_is_used_by_its_certificate_is_in_use(node: TokenNode) -> None:
    await declare_token(node.registry, "web", "read:*")
    principal = find_token(node.registry.snapshot.documents, "web").principal()
    node.access.certificates = OneCertificate(principal)
    assert node.access.identify(Credentials(certificate=b"DER")) is principal
    await node.clock.advance(UPKEEP_INTERVAL)
    assert node.used("web") == node.clock.wall() // DAY * DAY


async def test_a_revoked_token_is_forgotten_and_an_expired_one_removed(node: TokenNode) -> None:
    token = await declare_token(node.registry, "gone", "read:*")
    await declare_token(node.registry, "old", "read:*", expires=node.clock.wall() + 1)
    node.access.identify(Credentials(token))
    await revoke_token(node.registry, "gone")
    await node.clock.advance(UPKEEP_INTERVAL)
    assert node.access.last_used == {}
    assert [document.key.name for document in node.registry.snapshot.documents.of_kind(DocumentKind.TOKEN)] == ["old"]
    node.clock.jump(EXPIRED_TOKEN_KEPT)
    await node.clock.advance(UPKEEP_INTERVAL)
    assert len(node.registry.snapshot.documents) == 0


async def test_a_store_that_is_away_only_delays_the_record(node: TokenNode) -> None:
    token = await declare_token(node.registry, "web", "read:*")
    node.access.identify(Credentials(token))
    node.store.is_unavailable = True
    await node.clock.advance(2 * UPKEEP_INTERVAL)
    assert node.used("web") == 0.0
    node.store.is_unavailable = False
    await node.clock.advance(UPKEEP_INTERVAL)
    assert node.used("web") > 0.0


async def test_a_round_that_fails_does_not_end_the_others(
    node: TokenNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = await declare_token(node.registry, "web", "read:*")
    node.access.identify(Credentials(token))

    def fail() -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as broken:
        broken.setattr(node.access, "refresh", fail)
        await node.clock.advance(UPKEEP_INTERVAL)
    assert "a fault" in caplog.text
    await node.clock.advance(UPKEEP_INTERVAL)
    assert node.used("web") > 0.0


async def test_a_round_without_work_does_not_ask_the_store(node: TokenNode) -> None:
    await declare_token(node.registry, "web", "read:*")
    node.store.is_unavailable = True
    await node.upkeep.run_once()


async def test_a_node_that_finds_the_day_recorded_writes_nothing(node: TokenNode) -> None:
    token = await declare_token(node.registry, "web", "read:*")
    other = TokenUpkeep(node.registry, node.access, node.clock)
    node.access.identify(Credentials(token))
    await other.run_once()
    revision = node.registry.snapshot.revision
    await node.upkeep.run_once()
    assert node.registry.snapshot.revision == revision
