"""Requests about one instance, for tests of decisions."""

from __future__ import annotations

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.model import Check, CheckKind, Instance, Key, Listing, Override, Registration, Status

KEY = Key("orders", "o1")
NOW, LATER = Caller("tester", 100.0), Caller("tester", 200.0)
TIMER = Caller(REGISTRY_ACTOR, 300.0)
WEB, DB = Check("web", CheckKind.HTTP), Check("db", CheckKind.TCP)
DRAIN = Override(Status.DRAINING, "ann", "deploy", length=60.0, at=200.0)


def registration(*checks: Check, port: int = 8000, holder: str = "h1", ttl: float | None = 15.0) -> Registration:
    """A registration of `KEY`."""
    return Registration(Instance(*KEY, "127.0.0.1", port), ttl=ttl, checks=checks, holder=holder)


def after(*sequence: Decision, start: Snapshot = EMPTY_SNAPSHOT) -> Snapshot:
    """The snapshot after the decisions, each committed before the next."""
    snapshot = start
    for decision in sequence:
        changes = decision(snapshot)
        assert changes, "a decision that changes nothing proves nothing"
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, changes))
    return snapshot


def listing_of(snapshot: Snapshot) -> Listing:
    """The listing of `KEY`."""
    listing = snapshot.find(KEY)
    assert listing is not None
    return listing
