"""The channels of the services that requests address."""

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


def test_a_closed_channel_is_opened_anew() -> None:
    channels = ServiceChannels(_open, {})
    channel = channels.channel("orders")
    assert channels.channel("orders") is channel
    channel.close_soon()
    reopened = channels.channel("orders")
    assert (reopened is channel, reopened.closed) == (False, False)


def test_at_the_limit_the_service_missed_longest_ago_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_channels, "MAX_SERVICES", 3)
    channels = ServiceChannels(_open, {})
    users, late, early = (channels.channel(name) for name in ("users", "late", "early"))
    late.last_missed_at, early.last_missed_at = 9.0, 5.0
    assert channels.channel("orders").service == "orders"
    assert [channel.closed for channel in (users, late, early)] == [False, False, True]
    channels.channel("payments")
    assert [channel.closed for channel in (users, late)] == [False, True]
    with pytest.raises(NoEndpoint, match="3 services are followed already"):
        channels.channel("typo")


def test_a_dropped_service_is_found_when_it_is_called_again(daemon: RunningDaemon) -> None:
    with SyncClient(daemon.url, cache=False) as client:
        channels = ServiceChannels(client.on_demand_channel, {})
        channel = channels.channel("orders")
        with pytest.raises(NoEndpoint):
            channel.ready(0.1)
        first = channel.open()
        channel.close_soon()
        client.run(lambda _: first.close())
        assert first.resolver.closed
        with client.register("orders", 8000, drain_wait=0.0):
            assert channel.closed
            channels.channel("orders").ready()
            assert channels.channel("orders").pick().endpoint.instance.port == 8000
