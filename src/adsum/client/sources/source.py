"""The interface of a source: it provides the views of services and takes registrations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from adsum.core.model import Endpoint
from adsum.wire import LeaseBody, OverrideBody, RegistrationBody, RenewalResult, WriteResult


class ViewPosition(NamedTuple):
    """The position of a view: a revision of one epoch."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class ServiceUpdate:
    """An update of a service, applied as a whole or not at all.

    With `full`, `changed` is the whole service. Otherwise `changed` and `removed` turn the service as it was at
    `since`, or anywhere between `since` and `position`, into what it is at `position`; without any change the update
    only confirms that the view is fresh. `age`: seconds since the source itself knew this to be the newest state.
    """

    position: ViewPosition
    full: bool
    changed: Mapping[str, Endpoint]
    removed: frozenset[str] = frozenset()
    since: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The source lost its connection and goes on trying to connect. `reason` is a clause."""

    reason: str


class Source(Protocol):
    """A source of views, which also takes registrations.

    Every method but `watch` and `close` is bounded in time. It raises `RegistryUnavailable` if nothing answers, or the
    error that the answer states (`Invalid`, `UnknownInstance`, `LeaseLost`, `RegistryRefused`).
    """

    @property
    def cache_fallback_delay(self) -> float:
        """Seconds without an answer after which a view from disk may be used: half a second for each node."""
        ...

    def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follows a service until closed with `aclose`, over connections that break.

        `position` is called for each connection: it returns the position that the consumer has, to resume from.
        Requesting the next update acknowledges the one before: the consumer routes by it, and drains wait for that.
        """
        ...

    async def register(self, service: str, id: str, body: RegistrationBody) -> WriteResult:
        """Registers an instance.

        Raises `RegistrationConflict` if a live process has the id or the place and `body.takeover` does not take it.
        """
        ...

    async def renew(self, leases: Sequence[LeaseBody], node_timeout: float) -> RenewalResult:
        """Renews leases. A node that does not answer within `node_timeout` seconds is left for the next one."""
        ...

    async def override(self, service: str, id: str, body: OverrideBody) -> WriteResult:
        """Declares a status, such as draining, and waits up to `body.wait` seconds for consumers to acknowledge it."""
        ...

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> WriteResult:
        """Deregisters an instance. Raises `LeaseLost` if another holder has registered it since."""
        ...

    async def local_address(self) -> str:
        """Returns the address of this host on the way to the source."""
        ...

    def send_goodbye(self, services: Sequence[str] = ()) -> Coroutine[None, None, None]:
        """Sends a good-bye: this program no longer calls these services (none: any service), so drains need not wait.

        The good-bye covers the watches that exist at this call, not those that begin later, even if it arrives after
        them. It is sent when the result is awaited. Best effort, bounded in time, never raises.
        """
        ...

    async def close(self) -> None:
        """Closes every connection. Idempotent."""
        ...
