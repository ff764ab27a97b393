"""Brief renewals, one or several in a request: leases that this node keeps, and those of other nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.access.control import AccessControl
from adsum.core.access.actions import Action
from adsum.core.access.ownership import may_change
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError, KeeperUnavailable, LeaseLost, UnknownInstance
from adsum.core.model import Key
from adsum.dialects.native.asgi import encode_json
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders
from adsum.dialects.native.operations.lease_renewals import LeaseRenewals
from adsum.dialects.native.ports import LeaseRenewer, OtherNodes
from adsum.dialects.native.requests.api_request import parameter_value
from adsum.registry import Registry

MAX_ENCODED_RENEWALS: Final = 1_024
"""Encoded responses that are kept, one for each ttl. Past it all are dropped, and encoded again when needed."""


SettleBrief = Callable[[bytes | AdsumError], None]
"""Takes a response with the status 200, without the status line, or the error that the caller gets. Returns at once."""


class BriefRenewals:
    """Renews leases without a task. It leaves a renewal alone that an error must answer at once."""

    def __init__(
        self,
        registry: Registry,
        keeper: LeaseRenewer,
        others: OtherNodes,
        renewals: LeaseRenewals,
        access: AccessControl,
    ) -> None:
        self._registry = registry
        self._keeper = keeper
        self._others = others
        self._renewals = renewals
        self._access = access
        self._snapshot: Snapshot | None = None
        self._encoded: dict[float | None, bytes] = {}
        """ttl → response at `_snapshot`."""

    def renew(self, key: Key, holder: str, headers: PreparedHeaders, settle: SettleBrief) -> bool:
        """Renews a lease, and calls `settle` once: now if this node keeps it, later if another node does.

        Returns False, and does nothing, if the application must answer.
        """
        listing = self._registry.snapshot.find(key)
        if listing is None:
            return False
        try:
            principal = headers.caller.identify()
            if not (self._access.allows(principal, Action.RENEW, key.service) and may_change(principal, listing)):
                return False
            if not self._keeper.keeps(key.service):
                return self._forward(key, holder, settle)
            self._keeper.renew(key, holder)
        except AdsumError:
            return False
        settle(self._renewed(listing.registration.ttl))
        return True

    def _forward(self, key: Key, holder: str, settle: SettleBrief) -> bool:
        """Has another node renew a lease. Raises `Invalid` if the holder is not well-formed."""
        keepers = self._others.keepers(key.service)
        if len(keepers) != 1 or not self._registry.is_ready:
            return False
        if holder:
            parameter_value("holder", holder, wire.HolderClaim)

        def answer(lost: list[wire.LostLease] | KeeperUnavailable) -> None:
            if not lost:
                listing = self._registry.snapshot.find(key)
                settle(self._renewed(listing.registration.ttl if listing is not None else None))
            elif isinstance(lost, KeeperUnavailable):
                settle(lost)
            else:
                settle(UnknownInstance(*key) if lost[0].reason == "unknown" else LeaseLost(*key))

        self._others.submit_renewals(keepers[0], [wire.LeaseBody(*key, holder)], answer)
        return True

    def renew_many(self, body: bytes, headers: PreparedHeaders, settle: SettleBrief) -> bool:
        """Renews the leases in a body, and calls `settle` once, as `renew` does."""
        forwarded_to = headers.forwarded_to
        if not headers.is_json or forwarded_to not in (None, self._others.id) or not self._registry.is_ready:
            return False
        try:
            principal = headers.caller.identify()
            self._access.require(principal, Action.RENEW if forwarded_to is None else Action.FORWARD)
            leases = wire.decode(body, wire.RenewBody).leases
        except AdsumError:
            return False
        if forwarded_to is not None:
            settle(encode_json(wire.encode(self._renewals.renew_forwarded(leases))))
            return True

        def answer(lost: list[wire.LostLease] | KeeperUnavailable) -> None:
            if isinstance(lost, KeeperUnavailable):
                settle(lost)
                return
            snapshot = self._registry.snapshot
            renewed = len(leases) - len(lost)
            settle(encode_json(wire.encode(wire.RenewalResult(snapshot.epoch, snapshot.revision, renewed, lost, []))))

        return self._renewals.submit(leases, principal, answer)

    def _renewed(self, ttl: float | None) -> bytes:
        """Returns the response to the renewal of a lease with this ttl."""
        snapshot = self._registry.snapshot
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._encoded.clear()
        return self._encoded.get(ttl) or self._encode(snapshot, ttl)

    def _encode(self, snapshot: Snapshot, ttl: float | None) -> bytes:
        if len(self._encoded) >= MAX_ENCODED_RENEWALS:
            self._encoded.clear()
        encoded = encode_json(wire.encode(wire.WriteResult(snapshot.epoch, snapshot.revision, ttl)))
        self._encoded[ttl] = encoded
        return encoded
