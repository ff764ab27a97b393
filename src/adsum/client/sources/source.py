"""What the client asks of a source, where views come from and registrations go to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from adsum.core.model import Endpoint
from adsum.wire import LeaseBody, OverrideBody, RegistrationBody, RenewalResult, WriteResult


class ViewPosition(NamedTuple):
    """Up to where something is known: a revision of one epoch."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class ServiceUpdate:
    """What a source says in one breath; applied wholly or not at all.

    `whole`: `changed` is the whole service. Otherwise it turns the service as it was at `since`, or anywhere between
    `since` and `position`, into what it is at `position`; without changes it only says that the view is fresh. `age` is
    how many seconds ago the source itself knew it to be the newest.
    """

    position: ViewPosition
    full: bool
    changed: Mapping[str, Endpoint]
    removed: frozenset[str] = frozenset()
    since: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The source lost its connection and goes on trying; `reason` is one clause."""

    reason: str


class Source(Protocol):
    """Where views come from and registrations go to. Every call but `watch` and `close` is bounded in time and raises
    `RegistryUnavailable` if nobody answers, or what the answer means (`Invalid`, `UnknownInstance`, `LeaseLost`,
    `RegistryRefused`).
    """

    @property
    def cache_fallback_delay(self) -> float:
        """Seconds without an answer after which a view kept on disk may be used, about half a second a node."""
        ...

    def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follow a service for ever, over connections that break. Close it with `aclose`.

        `position` is asked at each connection: what the consumer knows already and need not be told. Asking for the
        next event says that the consumer routes by the group before it: drains wait for that.
        """
        ...

    async def register(self, service: str, id: str, body: RegistrationBody) -> WriteResult:
        """Raises `Taken` if a live process has the id or the place, and `body.takeover` does not take it."""
        ...

    async def renew(self, leases: Sequence[LeaseBody], node_timeout: float) -> RenewalResult:
        """Who does not answer within `patience` seconds is left for the next that may."""
        ...

    async def override(self, service: str, id: str, body: OverrideBody) -> WriteResult: ...

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> WriteResult: ...

    async def local_address(self) -> str:
        """The address of this host that faces the source."""
        ...

    def send_goodbye(self, services: Sequence[str] = ()) -> Coroutine[None, None, None]:
        """Say good-bye: nobody here calls these services (none: any service) any more, so drains need not wait for us.

        Watches that begin after this call are not meant, though the good-bye is said when the result is awaited, and
        may arrive after they have begun. Best effort, bounded in time, never raises.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; idempotent."""
        ...
