"""Writing: registrations, leases, overrides, and what consumers say they have applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from sys import intern
from typing import Final, Literal, Protocol

from adsum import wire
from adsum.core import decisions
from adsum.core.changes import Change
from adsum.core.decisions import Basis, Caller, Decision
from adsum.core.errors import KeeperUnavailable, LeaseLost, Taken, UnknownInstance
from adsum.core.model import Key, Listing, Override, Registration, Status
from adsum.core.shares import Peer
from adsum.core.takeover import Takeover
from adsum.dialects.native.asgi import Reply
from adsum.dialects.native.asked import Asked
from adsum.dialects.native.problems import Misdirected
from adsum.ports import Clock
from adsum.registry import Registry

_PASSED_ON: Final = wire.PASSED_ON_HEADER.lower().encode()

Admit = Callable[[str], None]
"""Raises `Invalid` naming `address` if an instance can't be there."""


class Renews(Protocol):
    """Whoever keeps the leases."""

    def keeps(self, service: str) -> bool:
        """Whether the service's leases are kept here."""
        ...

    def renew(self, key: Key, holder: str = "") -> None:
        """Keep the lease for another ttl. Raises `UnknownInstance` and `LeaseLost`."""
        ...

    async def answers(self, listing: Listing) -> bool:
        """Whether somebody answers at the place of the instance, by one probe at once. Raises `Overloaded`."""
        ...


class Others(Protocol):
    """The other nodes of the registry."""

    @property
    def id(self) -> str:
        """By which they name this one, and mean this run of it."""
        ...

    def keepers(self, service: str) -> Sequence[Peer]:
        """Those that may keep the service; none: we do, or nobody just now."""
        ...

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.Lost]:
        """Have them renew what they keep; those that could not be renewed.

        Raises `KeeperUnavailable` if one of the leases is kept by none that answers.
        """
        ...

    async def unaware(self, service: str, revision: int, wait: float) -> int:
        """How many of their consumers don't route by that revision after `wait` seconds."""
        ...


class Nobody:
    """There are no other nodes."""

    id = ""

    def keepers(self, service: str) -> Sequence[Peer]:  # noqa: ARG002
        return ()

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.Lost]:  # noqa: ARG002
        return []

    async def unaware(self, service: str, revision: int, wait: float) -> int:  # noqa: ARG002
        return 0


class Writes:
    """The operations that change the catalog or keep a lease."""

    def __init__(self, registry: Registry, keeper: Renews, others: Others, admit: Admit, clock: Clock) -> None:
        self._others = others
        self._registry = registry
        self._keeper = keeper
        self._admit = admit
        self._clock = clock

    async def register(self, asked: Asked) -> Reply:
        body = await asked.body(wire.RegistrationBody)
        registration = body.to_registration(*asked.key, asked.peer)
        self._admit(registration.instance.address)
        write, revision = await self._list(registration, body.takeover, self._caller(asked))
        if not write.changed:
            # Somebody may have taken it out, or over, since: the caller's next renewal says so.
            await self._renewed([wire.LeaseBody(*registration.key, registration.holder)])
        return self._written(revision, 201 if write.listed_anew else 200, ttl=registration.ttl)

    async def _list(self, registration: Registration, takeover: Takeover, caller: Caller) -> tuple[_Noting, int]:
        """Have it listed; the place of a process that would keep it out is probed first, once.

        Raises `Taken`, and what the registry raises.
        """
        write = _Noting(decisions.register(registration, caller, takeover))
        try:
            return write, await self._registry.write(write)
        except Taken as taken:
            if taken.probe is None or await self._keeper.answers(taken.probe):
                raise
            silent = {taken.probe.registration.process}
        write = _Noting(decisions.register(registration, caller, takeover, silent))
        return write, await self._registry.write(write)

    async def deregister(self, asked: Asked) -> Reply:
        reason, holder = asked.query.get("reason", ""), asked.query.get("holder", "")
        revision = await self._registry.write(decisions.deregister(asked.key, holder, reason, self._caller(asked)))
        return self._written(revision)

    async def renew(self, asked: Asked) -> Reply:
        key = asked.key
        for lost in await self._renewed([wire.LeaseBody(*key, asked.query.get("holder", ""))]):
            raise UnknownInstance(*key) if lost.reason == "unknown" else LeaseLost(*key)
        listing = self._registry.snapshot.find(asked.key)
        ttl = listing.registration.ttl if listing is not None else None
        return self._written(self._registry.snapshot.revision, ttl=ttl)

    async def renew_many(self, asked: Asked) -> Reply:
        body = await asked.body(wire.RenewBody)
        if self._is_passed_on(asked):
            leases = [lease for lease in body.leases if self._keeper.keeps(lease.service)]
            lost = self._kept(leases)
            not_kept = sorted({lease.service for lease in body.leases} - {lease.service for lease in leases})
        else:
            leases, lost, not_kept = body.leases, await self._renewed(body.leases), []
        snapshot = self._registry.snapshot
        renewed = len(leases) - len(lost)
        return Reply(200, wire.encode(wire.Renewed(snapshot.epoch, snapshot.revision, renewed, lost, not_kept)))

    async def override(self, asked: Asked) -> Reply:
        body = await asked.body(wire.OverrideBody)
        caller = self._caller(asked)
        override = Override(
            Status(body.status), caller.actor, body.reason, body.length, body.holder or None, at=caller.at
        )
        write = _Noting(decisions.overridden(asked.key, override, body.holder, caller))
        revision = await self._registry.write(write)
        unaware = 0
        if body.wait:
            since = revision if write.changed else self._last_change(asked.key)
            service = asked.key.service
            here = self._registry.watches.settled(service, since, body.wait)
            unaware = sum(await asyncio.gather(here, self._others.unaware(service, since, body.wait)))
        return self._written(revision, unaware=unaware)

    async def unaware(self, asked: Asked) -> Reply:
        self._is_passed_on(asked)
        revision, wait = asked.query.get("revision", 0), asked.query.get("wait", 0.0)
        deadline = self._clock.now() + wait
        unaware = 1  # As long as we don't know of it ourselves, nobody can have heard of it from us.
        if await self._registry.reached(revision, wait):
            left = max(0.0, deadline - self._clock.now())
            unaware = await self._registry.watches.settled(asked.path["service"], revision, left)
        snapshot = self._registry.snapshot
        return Reply(200, wire.encode(wire.Unaware(snapshot.epoch, snapshot.revision, unaware)))

    async def resume(self, asked: Asked) -> Reply:
        reason = asked.query.get("reason", "")
        return self._written(await self._registry.write(decisions.resumed(asked.key, reason, self._caller(asked))))

    def _is_passed_on(self, asked: Asked) -> bool:
        """Whether another node passes it on to us. Raises `Misdirected` if that one meant another than us."""
        meant = asked.header(_PASSED_ON)
        if meant is not None and meant != self._others.id:
            raise Misdirected("the node that is meant is not reached here; it may advertise the address of another one")
        return meant is not None

    async def _renewed(self, leases: Sequence[wire.LeaseBody]) -> list[wire.Lost]:
        """Renew what we keep, and have other nodes renew what they keep; those that could not be renewed.

        Raises `KeeperUnavailable` if there is one that nobody who can be asked keeps; the others are renewed.
        """
        ours, elsewhere, nobody = list[wire.LeaseBody](), dict[tuple[Peer, ...], list[wire.LeaseBody]](), ""
        for lease in leases:
            if self._keeper.keeps(lease.service):
                ours.append(lease)
            elif peers := tuple(self._others.keepers(lease.service)):
                elsewhere.setdefault(peers, []).append(lease)
            else:
                nobody = lease.service
        lost = self._kept(ours)
        if elsewhere:
            for more in await asyncio.gather(*(self._others.renew(peers, its) for peers, its in elsewhere.items())):
                lost += more
        if nobody:
            raise KeeperUnavailable(f"nobody keeps {nobody} just now, and so it can't be renewed")
        return lost

    def _kept(self, leases: Sequence[wire.LeaseBody]) -> list[wire.Lost]:
        """Renew what we keep; those that could not be renewed."""
        reasons = ((lease, self._lost(lease)) for lease in leases)
        return [wire.Lost(lease.service, lease.id, reason) for lease, reason in reasons if reason is not None]

    def _lost(self, lease: wire.LeaseBody) -> Literal["unknown", "superseded"] | None:
        try:
            self._keeper.renew(Key(lease.service, lease.id), lease.holder)
        except UnknownInstance:
            return "unknown"
        except LeaseLost:
            return "superseded"
        return None

    def _last_change(self, key: Key) -> int:
        """The revision at which the instance became what it is, as far as that is remembered."""
        service = self._registry.snapshot.service(key.service)
        steps = (step.revision for step in reversed(service.trail) if step.change.key == key)
        return next(steps, service.horizon)

    def _caller(self, asked: Asked) -> Caller:
        return Caller(intern(asked.actor), self._clock.wall())

    def _written(self, revision: int, status: int = 200, *, ttl: float | None = None, unaware: int = 0) -> Reply:
        return Reply(status, wire.encode(wire.Written(self._registry.snapshot.epoch, revision, ttl, unaware)))


class _Noting:
    """A decision that remembers what it decided last."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self.changed = False
        self.listed_anew = False

    def __call__(self, basis: Basis) -> list[Change]:
        changes = self._decision(basis)
        self.changed = bool(changes)
        self.listed_anew = any(change.listing is not None and basis.find(change.key) is None for change in changes)
        return changes
