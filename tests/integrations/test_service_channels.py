"""The channels of the names that requests bring."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from adsum.balance.picker import NoEndpoint
from adsum.client.calls.options import ChannelOptions
from adsum.client.sync import SyncClient
from adsum.integrations import service_channels
from adsum.integrations.service_channels import ServiceChannels
from tests.support.registry_daemon import RunningDaemon


@dataclass
class FakeChannel:
    service: str
    last_missed_at: float | None = None
    closed: bool = False

    def close_soon(self) -> None:
        self.closed = True


def _open(service: str, _: ChannelOptions | None) -> FakeChannel:
    return FakeChannel(service)


def test_a_channel_that_was_closed_is_opened_anew() -> None:
    routes = ServiceChannels(_open, {})
    channel = routes.channel("orders")
    assert routes.channel("orders") is channel
    channel.close_soon()
    again = routes.channel("orders")
    assert (again is channel, again.closed) == (False, False)


def test_past_the_bound_the_name_gives_way_that_was_longest_not_asked_for_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_channels, "MAX_SERVICES", 3)
    routes = ServiceChannels(_open, {})
    users, late, early = (routes.channel(name) for name in ("users", "late", "early"))
    late.last_missed_at, early.last_missed_at = 9.0, 5.0
    assert routes.channel("orders").service == "orders"
    assert [each.closed for each in (users, late, early)] == [False, False, True]
    routes.channel("payments")
    assert [each.closed for each in (users, late)] == [False, True]
    with pytest.raises(NoEndpoint, match="3 services are followed already"):
        routes.channel("typo")


def test_a_name_that_was_let_go_of_is_found_when_it_is_asked_for_again(daemon: RunningDaemon) -> None:
    with SyncClient(daemon.url, cache=False) as client:
        routes = ServiceChannels(client.on_demand_channel, {})
        channel = routes.channel("orders")
        with pytest.raises(NoEndpoint):
            channel.ready(0.1)
        first = channel.open()
        channel.close_soon()
        client.run(lambda _: first.close())
        assert first.resolver.closed
        with client.register("orders", 8000, drain_wait=0.0):
            assert channel.closed
            routes.channel("orders").ready()
            assert routes.channel("orders").pick().endpoint.instance.port == 8000
