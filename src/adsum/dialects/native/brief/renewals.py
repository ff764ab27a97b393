"""Brief renewals: leases that this node keeps, one or several in a request."""

from __future__ import annotations

from typing import Final

from adsum import wire
from adsum.access.control import AccessControl
from adsum.core.access.actions import Action
from adsum.core.access.ownership import may_change
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import AdsumError
from adsum.core.model import Key
from adsum.dialects.native.asgi import encode_json
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders
from adsum.dialects.native.operations.lease_renewals import LeaseRenewals
from adsum.dialects.native.ports import LeaseRenewer
from adsum.registry import Registry

MAX_ENCODED_RENEWALS: Final = 1_024
"""Encoded responses that are kept, one for each ttl. Past it all are dropped, and encoded again when needed."""


class BriefRenewals:
    """Renews leases without waiting. A renewal that another node or an error must answer is left alone."""

    def __init__(
        self, registry: Registry, keeper: LeaseRenewer, renewals: LeaseRenewals, access: AccessControl
    ) -> None:
        self._registry = registry
        self._keeper = keeper
        self._renewals = renewals
        self._access = access
        self._snapshot: Snapshot | None = None
        self._encoded: dict[float | None, bytes] = {}
        """ttl → response at `_snapshot`."""

    def renew(self, key: Key, holder: str, headers: PreparedHeaders) -> bytes | None:
        """Renews a lease, and returns the response, without the status line. Returns None if it is not renewed."""
        snapshot = self._registry.snapshot
        listing = snapshot.find(key)
        if listing is None:
            return None
        try:
            principal = headers.caller.identify()
            if not (
                self._access.allows(principal, Action.RENEW, key.service)
                and may_change(principal, listing)
                and self._keeper.keeps(key.service)
            ):
                return None
            self._keeper.renew(key, holder)
        except AdsumError:
            return None
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._encoded.clear()
        ttl = listing.registration.ttl
        return self._encoded.get(ttl) or self._encode(snapshot, ttl)

    def renew_many(self, body: bytes, headers: PreparedHeaders) -> bytes | None:
        """Renews the leases in a body. Returns the response as `renew` does; None if no lease is renewed."""
        if not headers.is_json or headers.is_forwarded or not self._registry.is_ready:
            return None
        try:
            principal = headers.caller.identify()
            self._access.require(principal, Action.RENEW)
            leases = wire.decode(body, wire.RenewBody).leases
            lost = self._renewals.renew_here(leases, principal)
        except AdsumError:
            return None
        if lost is None:
            return None
        snapshot = self._registry.snapshot
        renewed = len(leases) - len(lost)
        return encode_json(wire.encode(wire.RenewalResult(snapshot.epoch, snapshot.revision, renewed, lost, [])))

    def _encode(self, snapshot: Snapshot, ttl: float | None) -> bytes:
        if len(self._encoded) >= MAX_ENCODED_RENEWALS:
            self._encoded.clear()
        encoded = encode_json(wire.encode(wire.WriteResult(snapshot.epoch, snapshot.revision, ttl)))
        self._encoded[ttl] = encoded
        return encoded
