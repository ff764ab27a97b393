"""Decides which hosts are services, and keeps a channel for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import inf
from threading import Lock
from typing import Final, Generic, Protocol, TypedDict, TypeVar

from adsum.balance.picker import NoEndpoint
from adsum.client.calls.channel import READY_TIMEOUT
from adsum.client.calls.options import ChannelOptions
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint
from adsum.core.validation import service_name

MAX_SERVICES: Final = 1_000
"""Services that one integration follows, each with a watch. For one more, one without an instance is dropped: the one
with the oldest `last_missed_at`. If all have instances, the call raises `NoEndpoint`. Where users choose the hosts,
set the option `services`, or they can open that many watches."""
DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
"""The port of a URL without one."""


class FollowedChannel(Protocol):
    """The part of a channel that this module needs. The channel may be asynchronous or not."""

    @property
    def closed(self) -> bool: ...

    @property
    def last_missed_at(self) -> float | None:
        """When a call last found no instance; None if the channel must be kept."""
        ...

    def close_soon(self) -> None: ...


C = TypeVar("C", bound=FollowedChannel)


class IntegrationOptions(TypedDict, total=False):
    """The options that every calling integration takes."""

    services: Collection[str]
    """Only these names are services."""
    suffix: str
    """Only hosts with this ending are services: with ".adsum", http://orders.adsum/ goes to orders."""
    channel: ChannelOptions
    """Options of the channels: how instances are chosen and called. The client's options by default."""
    ready_timeout: float
    """Seconds that the first call to a service waits, at most, for a view of it from the registry or the disk."""
    server_name: Callable[[Endpoint], str]
    """The name that the certificate of an https instance must have; the service's by default. What the instance itself
    declares does not count, because a false registration could declare anything."""


class ServiceChannels(Generic[C]):
    """Channels by service. Each is opened by `open` at the first call. Thread-safe."""

    def __init__(self, open: Callable[[str, ChannelOptions | None], C], options: IntegrationOptions) -> None:
        """Raises `Invalid`, and `TypeError` for an unknown option."""
        unknown = options.keys() - IntegrationOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown option {min(unknown)!r}")
        self.ready_timeout = options.get("ready_timeout", READY_TIMEOUT)
        self.server_name = options.get("server_name", _service_of)
        self._open = open
        self._options = options.get("channel")
        services = options.get("services")
        self._services = None if services is None else frozenset(services)
        for name in self._services or ():
            service_name("services", name)
        self._suffix = "." + options["suffix"].strip(".").lower() if options.get("suffix") else ""
        self._channels: dict[str, C] = {}
        self._lock = Lock()

    def service(self, scheme: str, host: str, port: int | None) -> str | None:
        """Returns the service that a URL addresses; None if it addresses a machine.

        A service is one label without a port. A host with a dot or a colon, or with a port of its own, is an address.
        """
        if port is not None and port != DEFAULT_PORTS.get(scheme):
            return None
        host = host.lower()
        if scheme not in DEFAULT_PORTS or not host.endswith(self._suffix):
            return None
        name = host.removesuffix(self._suffix)
        if self._services is not None:
            return name if name in self._services else None
        return name if _may_be_service(name) else None

    def channel(self, service: str) -> C:
        """Returns the service's channel. Raises `NoEndpoint` if too many services are followed already."""
        channel = self._channels.get(service)
        if channel is not None and not channel.closed:
            return channel
        with self._lock:
            channel = self._channels.get(service)
            if channel is None or channel.closed:
                if service not in self._channels:
                    self._make_room(service)
                channel = self._channels[service] = self._open(service, self._options)
            return channel

    def _make_room(self, service: str) -> None:
        """Drops a channel if there are `MAX_SERVICES`. Raises `NoEndpoint` if none can be dropped."""
        if len(self._channels) < MAX_SERVICES:
            return
        missed = {name: channel.last_missed_at for name, channel in self._channels.items()}
        name = min(missed, key=lambda service: inf if (at := missed[service]) is None else at)
        if missed[name] is None:
            raise NoEndpoint(
                f"no endpoint of {service}: {MAX_SERVICES} services are followed already, which is the limit; "
                "set the option `services` to the names that are services"
            )
        self._channels.pop(name).close_soon()


def _service_of(endpoint: Endpoint) -> str:
    return endpoint.service


def _may_be_service(name: str) -> bool:
    """Returns whether it is a valid service name, and neither localhost nor a number, which systems read as an IP
    address.
    """
    if name == "localhost" or name.isdigit() or name.startswith("0x"):
        return False
    try:
        service_name("host", name)
    except Invalid:
        return False
    return True
