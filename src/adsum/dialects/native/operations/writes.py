"""Writing: registrations, leases, overrides, and what consumers say they have applied."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from adsum import wire
from adsum.consumers import AckQuery, ConsumerHints, build_report
from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.takeover import ProbeRequired, Takeover
from adsum.core.errors import KeeperUnavailable, LeaseLost, RegistrationConflict, UnknownInstance
from adsum.core.model import Key, Listing, Override, Registration, Status
from adsum.core.nodes.sharding import Peer
from adsum.core.validation import quoted
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.problems import STOPPING, MisdirectedRequest, WaitEnded
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.ports import Clock
from adsum.registry import Registry

_log = logging.getLogger("adsum.native")

_PASSED_ON: Final = wire.FORWARDED_TO_HEADER.lower().encode()

MAX_LOGGED_CONSUMERS: Final = 20
"""How many consumers a line of the log names; further ones are only counted."""
RETRY_ADVICE: Final = "ask another node, or this one once it is back, whether consumers know it"
REVISION_NOT_REACHED: Final = "this node has not heard of the change yet, and so none of its consumers has"

AddressCheck = Callable[[str], None]
"""Raises `Invalid` naming `address` if an instance can't be there."""


class LeaseRenewer(Protocol):
    """Whoever keeps the leases."""

    def keeps(self, service: str) -> bool:
        """Whether the service's leases are kept here."""
        ...

    def renew(self, key: Key, holder: str = "") -> None:
        """Keep the lease for another ttl. Raises `UnknownInstance` and `LeaseLost`."""
        ...

    async def is_reachable(self, listing: Listing) -> bool:
        """Whether somebody answers at the place of the instance, by one probe at once. Raises `Overloaded`."""
        ...


class OtherNodes(Protocol):
    """The other nodes of the registry."""

    @property
    def id(self) -> str:
        """By which they name this one, and mean this run of it."""
        ...

    def keepers(self, service: str) -> Sequence[Peer]:
        """Those that may keep the service; none: we do, or nobody just now."""
        ...

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Have them renew what they keep; those that could not be renewed.

        Raises `KeeperUnavailable` if one of the leases is kept by none that answers.
        """
        ...

    async def wait_for_acknowledgements(
        self, query_here: AckQuery, service: str, revision: int, wait: float
    ) -> wire.AcknowledgementReport:
        """Which consumers, of this node (see `Ask`) and of theirs, don't route by that revision after `wait` seconds.

        Comes at latest a second later than that, whatever the other nodes do.
        """
        ...


class NoOtherNodes:
    """There are no other nodes."""

    id = ""

    def keepers(self, service: str) -> Sequence[Peer]:
        return ()

    async def renew(self, peers: Sequence[Peer], leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        return []

    async def wait_for_acknowledgements(
        self, query_here: AckQuery, service: str, revision: int, wait: float
    ) -> wire.AcknowledgementReport:
        return await query_here(service, revision, wait, (), ConsumerHints())


class WriteOperations:
    """The operations that change the catalog or keep a lease."""

    def __init__(
        self, registry: Registry, keeper: LeaseRenewer, others: OtherNodes, admit: AddressCheck, clock: Clock, node: str
    ) -> None:
        """`node`: the name of this node."""
        self._node = node
        self._others = others
        self._registry = registry
        self._keeper = keeper
        self._admit = admit
        self._clock = clock

    async def register(self, asked: ApiRequest) -> ApiReply:
        body = await asked.body(wire.RegistrationBody)
        registration = body.to_registration(*asked.key, asked.peer)
        self._admit(registration.instance.address)
        write, revision = await self._list(registration, body.takeover, asked.caller(self._clock.wall()))
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
        except ProbeRequired as conflict:
            if await self._keeper.is_reachable(conflict.listing):
                raise RegistrationConflict(str(conflict)) from None
            silent = {conflict.listing.registration.identity}
        write = _Noting(decisions.register(registration, caller, takeover, silent))
        return write, await self._registry.write(write)

    async def deregister(self, asked: ApiRequest) -> ApiReply:
        reason, holder = asked.query.get("reason", ""), asked.query.get("holder", "")
        revision = await self._registry.write(
            decisions.deregister(asked.key, holder, reason, asked.caller(self._clock.wall()))
        )
        return self._written(revision)

    async def forget(self, asked: ApiRequest) -> ApiReply:
        service, reason = asked.path["service"], asked.query.get("reason", "")
        caller = asked.caller(self._clock.wall())
        return self._written(await self._registry.write(decisions.forget(service, reason, caller)))

    async def renew(self, asked: ApiRequest) -> ApiReply:
        key = asked.key
        for lost in await self._renewed([wire.LeaseBody(*key, asked.query.get("holder", ""))]):
            raise UnknownInstance(*key) if lost.reason == "unknown" else LeaseLost(*key)
        listing = self._registry.snapshot.find(asked.key)
        ttl = listing.registration.ttl if listing is not None else None
        return self._written(self._registry.snapshot.revision, ttl=ttl)

    async def renew_many(self, asked: ApiRequest) -> ApiReply:
        body = await asked.body(wire.RenewBody, reject_repeated_keys=False)
        if self._is_passed_on(asked):
            leases = [lease for lease in body.leases if self._keeper.keeps(lease.service)]
            lost = self._kept(leases)
            not_kept = sorted({lease.service for lease in body.leases} - {lease.service for lease in leases})
        else:
            leases, lost, not_kept = body.leases, await self._renewed(body.leases), []
        snapshot = self._registry.snapshot
        renewed = len(leases) - len(lost)
        return ApiReply(
            200, wire.encode(wire.RenewalResult(snapshot.epoch, snapshot.revision, renewed, lost, not_kept))
        )

    async def override(self, asked: ApiRequest) -> ApiReply:
        body = await asked.body(wire.OverrideBody)
        deadline = self._clock.now() + body.wait
        caller = asked.caller(self._clock.wall())
        override = Override(
            Status(body.status), caller.actor, body.reason, body.length, body.holder or None, at=caller.at
        )
        write = _Noting(decisions.set_override(asked.key, override, body.holder, caller))
        try:
            revision = await self._registry.write(write)
        except UnknownInstance:
            self._registry.watches.consumers.note_restart()  # Consumers may know it from before.
            raise
        if not body.wait:
            return self._written(revision)
        since = revision if write.changed else self._last_change(asked.key)
        left = max(0.0, deadline - self._clock.now())
        settled = self._others.wait_for_acknowledgements(self._settled, asked.key.service, since, left)
        found = await self._unless_stopping(settled, f"{asked.key} is {body.status}, but {STOPPING}; {RETRY_ADVICE}")
        _log_unconfirmed(asked.key, body, found)
        return self._written(revision, unaware=found)

    async def read_unacknowledged(self, asked: ApiRequest) -> ApiReply:
        """Another node drains an instance."""
        query = asked.query
        hints = ConsumerHints()
        if self._is_passed_on(asked):
            hints = ConsumerHints(query.get("acknowledged", ()), query.get("goodbye", ()))
        about = query.get("consumer", ())
        settled = self._settled(asked.path["service"], query.get("revision", 0), query.get("wait", 0.0), about, hints)
        return ApiReply(200, wire.encode(await self._unless_stopping(settled, STOPPING)))

    async def _unless_stopping(
        self, settled: Coroutine[Any, Any, wire.AcknowledgementReport], problem: str
    ) -> wire.AcknowledgementReport:
        """What `settled` returns. Raises `WaitEnded` with that problem as soon as the node stops: nobody is heard here
        any more.
        """
        waiting = asyncio.ensure_future(settled)
        stopping = asyncio.ensure_future(self._registry.watches.wait_until_ended())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise WaitEnded(problem)
            return waiting.result()
        finally:
            waiting.cancel()
            stopping.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)

    async def _settled(
        self, service: str, revision: int, wait: float, about: Sequence[str], hints: ConsumerHints
    ) -> wire.AcknowledgementReport:
        """Which consumers of this node don't route by the revision after `wait` seconds (an `Ask`)."""
        deadline = self._clock.now() + wait
        if not await self._registry.wait_for_revision(revision, wait):
            # As long as we have not heard of it ourselves, none of our consumers can have heard of it from us.
            snapshot = self._registry.snapshot
            known = wire.ConsumerView(name=self._node, node=self._node, reason=REVISION_NOT_REACHED)
            return wire.AcknowledgementReport(snapshot.epoch, snapshot.revision, 1, [known])
        consumers = self._registry.watches.consumers
        consumers.apply_hints(service, revision, hints)
        left = max(0.0, deadline - self._clock.now())
        standing = await consumers.wait_for_acknowledgements(service, revision, left)
        here = consumers.hints_for(about, service, revision)
        snapshot, clock = self._registry.snapshot, self._clock
        found = build_report(
            standing, self._node, snapshot.epoch, snapshot.revision, now=clock.now(), wall=clock.wall()
        )
        return msgspec.structs.replace(found, acknowledged=list(here.acknowledged), goodbyes=list(here.goodbyes))

    async def resume(self, asked: ApiRequest) -> ApiReply:
        reason = asked.query.get("reason", "")
        return self._written(
            await self._registry.write(decisions.clear_override(asked.key, reason, asked.caller(self._clock.wall())))
        )

    def _is_passed_on(self, asked: ApiRequest) -> bool:
        """Whether another node passes it on to us. Raises `MisdirectedRequest` if that one meant another than us."""
        meant = asked.header(_PASSED_ON)
        if meant is not None and meant != self._others.id:
            raise MisdirectedRequest(
                "the node that is meant is not reached here; it may advertise the address of another one"
            )
        return meant is not None

    async def _renewed(self, leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
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

    def _kept(self, leases: Sequence[wire.LeaseBody]) -> list[wire.LostLease]:
        """Renew what we keep; those that could not be renewed."""
        reasons = ((lease, self._lost(lease)) for lease in leases)
        return [wire.LostLease(lease.service, lease.id, reason) for lease, reason in reasons if reason is not None]

    def _lost(self, lease: wire.LeaseBody) -> Literal["unknown", "superseded"] | None:
        try:
            self._keeper.renew(Key(lease.service, lease.id), lease.holder)
        except UnknownInstance:
            self._registry.watches.consumers.note_restart()  # Likewise.
            return "unknown"
        except LeaseLost:
            return "superseded"
        return None

    def _last_change(self, key: Key) -> int:
        """The revision at which the instance became what it is, as far as that is remembered."""
        service = self._registry.snapshot.service(key.service)
        steps = (step.revision for step in reversed(service.recent_changes) if step.id == key.id)
        return next(steps, service.compact_revision)

    def _written(
        self,
        revision: int,
        status: int = 200,
        *,
        ttl: float | None = None,
        unaware: wire.AcknowledgementReport | None = None,
    ) -> ApiReply:
        written = wire.WriteResult(self._registry.snapshot.epoch, revision, ttl)
        if unaware is not None:
            written = msgspec.structs.replace(
                written,
                unacknowledged=unaware.unacknowledged,
                waiting=[_for_people(each) for each in unaware.waiting],
                lost=[_for_people(each) for each in unaware.lost],
                lost_count=unaware.lost_count,
            )
        return ApiReply(status, wire.encode(written))


class _Noting:
    """A decision that remembers what it decided last."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self.changed = False
        self.listed_anew = False

    def __call__(self, basis: CatalogView) -> list[Change]:
        changes = self._decision(basis)
        self.changed = bool(changes)
        self.listed_anew = any(change.listing is not None and basis.find(change.key) is None for change in changes)
        return changes


def _for_people(view: wire.ConsumerView) -> wire.ConsumerView:
    """Without the id, under which a good-bye can be said in its name."""
    return msgspec.structs.replace(view, id="")


def _log_unconfirmed(key: Key, body: wire.OverrideBody, found: wire.AcknowledgementReport) -> None:
    """Tell the operator who has not confirmed within its wait, and who was not waited for."""
    if found.unacknowledged:
        _log.warning(
            "%s is %s, and %d had not confirmed it after %g s: %s%s",
            key,
            body.status,
            found.unacknowledged,
            body.wait,
            _names(found.waiting),
            f"; lost: {_names(found.lost)}" if found.lost else "",
        )
    elif found.lost:
        _log.info(
            "%s is %s, and %d were lost and not waited for: %s",
            key,
            body.status,
            found.lost_count,
            _names(found.lost),
        )


def _names(views: Sequence[wire.ConsumerView]) -> str:
    said = [
        f"{quoted(each.name)} at {each.address} (known to {each.node}): {each.reason}"
        for each in views[:MAX_LOGGED_CONSUMERS]
    ]
    more = f" and {len(views) - MAX_LOGGED_CONSUMERS} more" if len(views) > MAX_LOGGED_CONSUMERS else ""
    return ", ".join(said) + more
