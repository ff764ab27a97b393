"""Writing: registrations, leases, overrides, and what consumers say they have applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from sys import intern
from typing import Literal, Protocol

from adsum import wire
from adsum.core import decisions
from adsum.core.changes import Change
from adsum.core.decisions import Basis, Caller, Decision
from adsum.core.errors import LeaseLost, UnknownInstance
from adsum.core.model import Key, Override, Status
from adsum.dialects.native.asgi import Reply
from adsum.dialects.native.asked import Asked
from adsum.ports import Clock
from adsum.registry import Registry

Admit = Callable[[str], None]
"""Raises `Invalid` naming `address` if an instance can't be there."""


class Renews(Protocol):
    """Whoever keeps the leases."""

    def renew(self, key: Key, holder: str = "") -> None:
        """Keep the lease for another ttl. Raises `UnknownInstance` and `LeaseLost`."""
        ...


class Writes:
    """The operations that change the catalog or keep a lease."""

    def __init__(self, registry: Registry, keeper: Renews, admit: Admit, clock: Clock) -> None:
        self._registry = registry
        self._keeper = keeper
        self._admit = admit
        self._clock = clock

    async def register(self, asked: Asked) -> Reply:
        body = await asked.body(wire.RegistrationBody)
        registration = body.to_registration(*asked.key, asked.peer)
        self._admit(registration.instance.address)
        write = _Noting(decisions.register(registration, self._caller(asked)))
        revision = await self._registry.write(write)
        with contextlib.suppress(UnknownInstance, LeaseLost):
            # Somebody may have taken it out, or over, since: the caller's next renewal says so.
            self._keeper.renew(registration.key, registration.holder)
        return self._written(revision, 201 if write.listed_anew else 200, ttl=registration.ttl)

    async def deregister(self, asked: Asked) -> Reply:
        reason, holder = asked.query.get("reason", ""), asked.query.get("holder", "")
        revision = await self._registry.write(decisions.deregister(asked.key, holder, reason, self._caller(asked)))
        return self._written(revision)

    async def renew(self, asked: Asked) -> Reply:
        self._keeper.renew(asked.key, asked.query.get("holder", ""))
        listing = self._registry.snapshot.find(asked.key)
        ttl = listing.registration.ttl if listing is not None else None
        return self._written(self._registry.snapshot.revision, ttl=ttl)

    async def renew_many(self, asked: Asked) -> Reply:
        body = await asked.body(wire.RenewBody)
        lost = []
        for lease in body.leases:
            reason = self._lost(lease)
            if reason is not None:
                lost.append(wire.Lost(lease.service, lease.id, reason))
        snapshot = self._registry.snapshot
        renewed = len(body.leases) - len(lost)
        return Reply(200, wire.encode(wire.Renewed(snapshot.epoch, snapshot.revision, renewed, lost)))

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
            unaware = await self._registry.watches.settled(asked.key.service, since, body.wait)
        return self._written(revision, unaware=unaware)

    async def resume(self, asked: Asked) -> Reply:
        reason = asked.query.get("reason", "")
        return self._written(await self._registry.write(decisions.resumed(asked.key, reason, self._caller(asked))))

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
        self.listed_anew = any(basis.find(change.key) is None for change in changes)
        return changes
