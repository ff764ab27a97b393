"""A source under the test's control, and short ways to make what it says."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence

from adsum.client.errors import RegistryUnavailable
from adsum.client.ports import Group, Lost, Position
from adsum.core.errors import UnknownInstance
from adsum.core.model import Endpoint, Instance, Status
from adsum.wire import LeaseBody, OverrideBody, RegistrationBody, Renewed, Written
from adsum.wire import Lost as LostLease


def endpoint(id: str, status: Status = Status.PASSING, *, port: int = 80, zone: str = "", weight: int = 1) -> Endpoint:
    return Endpoint(Instance("orders", id, "10.0.0.1", port, zone=zone, weight=weight), status)


def whole(revision: int, *endpoints: Endpoint, epoch: str = "e1", age: float = 0.0) -> Group:
    return Group(Position(epoch, revision), True, {each.id: each for each in endpoints}, age=age)


def delta(
    since: int, revision: int, *changed: Endpoint, gone: Sequence[str] = (), epoch: str = "e1", age: float = 0.0
) -> Group:
    return Group(
        Position(epoch, revision), False, {each.id: each for each in changed}, frozenset(gone), since=since, age=age
    )


class ScriptedSource:
    """Implements `ports.Source`: says what it is told to say, and remembers what it was asked."""

    patience = 1.0

    def __init__(self) -> None:
        self.left: list[Sequence[str]] = []
        """The services of each good-bye."""
        self.positions: list[Position | None] = []
        """What the consumer knew each time a watch began."""
        self.applied: list[Position] = []
        """The groups after which more was asked for."""
        self.watching = 0
        self.down = False
        self.epoch = "e1"
        self.listed: dict[tuple[str, str], RegistrationBody] = {}
        self.calls: list[str] = []
        self.overrides: list[OverrideBody] = []
        self.superseded: set[str] = set()
        self.refuse: Exception | None = None
        self.unaware = 0
        self.closed = False
        self.answering = asyncio.Event()
        """Clear: what is registered is in the catalog, and its answer on the way."""
        self.answering.set()
        self._said: defaultdict[str, asyncio.Queue[Group | Lost | Exception | None]] = defaultdict(asyncio.Queue)

    def say(self, *events: Group | Lost | Exception | None, service: str = "orders") -> None:
        """An exception is raised, None ends the watch."""
        for event in events:
            self._said[service].put_nowait(event)

    async def watch(self, service: str, position: Callable[[], Position | None]) -> AsyncGenerator[Group | Lost, None]:
        self.positions.append(position())
        self.watching += 1
        try:
            while (event := await self._said[service].get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, Group):
                    self.applied.append(event.position)
        finally:
            self.watching -= 1

    async def register(self, service: str, id: str, body: RegistrationBody) -> Written:
        self._ask(f"register {id}")
        if self.refuse is not None:
            raise self.refuse
        self.listed[service, id] = body
        await self.answering.wait()
        return Written(self.epoch, 1, body.ttl)

    async def renew(self, leases: Sequence[LeaseBody], patience: float) -> Renewed:
        self._ask(f"renew {' '.join(lease.id for lease in leases)}")
        lost = [LostLease(lease.service, lease.id, "superseded") for lease in leases if lease.id in self.superseded]
        lost += [
            LostLease(lease.service, lease.id, "unknown")
            for lease in leases
            if (lease.service, lease.id) not in self.listed
        ]
        return Renewed(self.epoch, 1, len(leases) - len(lost), lost)

    async def override(self, service: str, id: str, body: OverrideBody) -> Written:
        self._ask(f"override {id}")
        if (service, id) not in self.listed:
            raise UnknownInstance(service, id)
        self.overrides.append(body)
        return Written(self.epoch, 2, unaware=self.unaware)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> Written:
        self._ask(f"deregister {id}")
        self.listed.pop((service, id), None)
        return Written(self.epoch, 3)

    async def local_address(self) -> str:
        self._ask("address")
        return "10.1.2.3"

    async def leave(self, services: Sequence[str] = ()) -> None:
        self.left.append(services)

    async def close(self) -> None:
        self.closed = True

    def _ask(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise RegistryUnavailable("it is down")
