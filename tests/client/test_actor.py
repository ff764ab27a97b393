"""The author that the registry records for the changes of a program."""

from __future__ import annotations

import os
import platform
import pwd

import pytest

from adsum.client.actor import default_actor
from adsum.client.client import Client
from adsum.client.sync import SyncClient
from adsum.core.errors import Invalid
from tests.support.registry_daemon import RunningDaemon

pytestmark = pytest.mark.usefixtures("no_actor_in_the_environment")


@pytest.fixture
def no_actor_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADSUM_ACTOR", raising=False)


async def _recorded(client: Client) -> str:
    """Returns the author of an instance that the client registers."""
    async with client.register("orders", 8000, id="o1", drain_wait=0.0, signals=False):
        return (await client.api.instance("orders", "o1")).instance.claimed


async def test_the_client_records_user_and_host_by_default(daemon: RunningDaemon) -> None:
    async with Client(daemon.url, cache=False) as client:
        assert await _recorded(client) == f"{pwd.getpwuid(os.getuid()).pw_name}@{platform.node()}"


async def test_the_client_records_the_actor_of_the_environment(
    daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_ACTOR", " deploy-bot ")
    async with Client(daemon.url, cache=False) as client:
        assert await _recorded(client) == "deploy-bot"
    async with Client(daemon.url, cache=False, actor="ann") as client:
        assert await _recorded(client) == "ann"


def test_the_sync_client_records_an_actor(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_ACTOR", "deploy-bot")
    with SyncClient(daemon.url, cache=False) as client:
        assert client.run(_recorded) == "deploy-bot"


async def test_an_actor_may_have_letters_outside_ascii(daemon: RunningDaemon) -> None:
    async with Client(daemon.url, cache=False, actor="Jörg 李") as client:
        assert await _recorded(client) == "Jörg 李"


@pytest.mark.parametrize("actor", ["a" * 129, "two\nlines", "\x1b[31mred"])
def test_an_invalid_actor_is_refused_by_its_field(monkeypatch: pytest.MonkeyPatch, actor: str) -> None:
    with pytest.raises(Invalid, match=r"^actor: must be"):
        Client(cache=False, actor=actor)
    monkeypatch.setenv("ADSUM_ACTOR", actor)
    with pytest.raises(Invalid, match=r"^ADSUM_ACTOR: must be"):
        Client(cache=False)


def test_the_default_actor_fits_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    monkeypatch.setattr(platform, "node", lambda: "h" * 300)
    assert default_actor().startswith(f"uid-{os.getuid()}@hhh")
    assert len(default_actor()) == 128
