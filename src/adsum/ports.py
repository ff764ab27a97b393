"""What we ask of the world, as small interfaces with exact promises.

Rules never import this; the rooms above them are handed implementations by the composition root (`daemon`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, Protocol

from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.model import Check, Instance, Key, Outcome
from adsum.core.nodes.sharding import Peer


class Clock(Protocol):
    """Time. Decisions use `now`; `wall` is shown to people and never compared."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    async def sleep(self, length: float) -> None:
        """Return after `length` seconds; a negative one yields once."""
        ...


class Store(Protocol):
    """Keeps batches in one order, durably.

    One registry opens a store, follows `watch` for ever, and calls `commit` and `confirm` one at a time. Every method
    but `close` raises `StoreUnavailable` while the store can't be reached.
    """

    def join(self, name: str) -> Sharding:
        """Take part in keeping, as the node of that name, from `Sharding.begin` on for as long as the store is open.

        Called once, before that. One who does not join may follow and write, and keeps nothing.
        """
        ...

    async def open(self) -> None:
        """Get ready. Raises `StoreOpenFailed` with a sentence for the operator if that can't be."""
        ...

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        """Write a batch of at least one fact under one new revision and return it, once it would survive a crash.

        `base_revision` is the revision of the snapshot that the changes were decided on; if the store has moved past it,
        nothing is written and `StoreConflict` is raised. Nothing is written either when any other error is raised.
        """
        ...

    async def confirm(self, base_revision: int) -> None:
        """Return if nothing was committed after `base_revision`, by anybody, when this was called. Raises `StoreConflict`.

        What changes nothing may be answered then: it was decided on the newest snapshot too.
        """
        ...

    def watch(self) -> AsyncIterator[FullState | Batch]:
        """The stream that the catalog is folded from: first the `FullState` state, then every batch, in order, ours too.

        Another `FullState` may follow when the stream could not go on from where it was (its epoch may differ).
        """
        ...

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        """The newest recorded changes, newest first, at most `limit`; of one service or instance if given.

        A store keeps at least the latest `MAX_HISTORY_PER_SERVICE` changes of each service over restarts (memory: until it ends),
        as long as those are `HISTORY` in all; of more, the service that has the most loses its oldest.
        """
        ...

    async def edits(self, kind: DocumentKind | None, name: str | None, limit: int) -> Sequence[RecordedEdit]:
        """The newest recorded edits, newest first, at most `limit`; of one kind, and of one name, if given.

        A store keeps the last `MAX_EDITS`, of one document the last `MAX_EDITS_PER_DOCUMENT`, over restarts (memory: until it
        ends).
        """
        ...

    def age(self) -> float:
        """Seconds since what `watch` showed was known to be the newest; 0.0 for a store inside this process."""
        ...

    def isolated_seconds(self) -> float:
        """Seconds for which this node could not write, though it may hear what is new; 0.0 while it can.

        A node of several keeps nothing either while that lasts.
        """
        ...

    def condition(self) -> Mapping[str, str]:
        """What there is to tell people of the store, by name: its version, its leader, and `trouble` if it has any."""
        ...

    async def close(self) -> None:
        """Let go of everything; idempotent. What was acknowledged stays."""
        ...


class Sharding(Protocol):
    """Which node of a registry keeps which services."""

    @property
    def id(self) -> str:
        """What tells this run of this node from all others."""
        ...

    @property
    def kept_shards(self) -> Set[int]:
        """The shards that this node keeps now; another object whenever that changed."""
        ...

    def advertise(self, url: str) -> None:
        """Where other nodes reach this one; said once, before the store is opened."""
        ...

    async def start(self) -> None:
        """From now on others leave to this node what falls to it. Raises `StoreUnavailable`.

        Called once, when it can look after that: the catalog is loaded, and the keeper runs. A node that shares with
        others keeps nothing until then, and writes nothing.
        """
        ...

    def keepers(self, service: str) -> Sequence[Peer]:
        """The other nodes that may keep the service: one, or, if we can't be sure which, all of them.

        None if we keep it, and if nobody does just now.
        """
        ...

    def peers(self) -> Sequence[tuple[Peer, int]]:
        """The other nodes, each with how many shards it keeps."""
        ...

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        """The other nodes that left not long ago, however they ended, each with how many seconds ago."""
        ...


class Probe(Protocol):
    """Runs a check once. One implementation per kind of check."""

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """Verify once, within `check.timeout` seconds.

        Whatever goes wrong with the instance is an outcome whose note says it in words; raises `ProbeUnavailable` when
        nothing can be said about the instance, because we lack what a probe needs (files, ports, memory).
        """
        ...

    async def close(self) -> None:
        """Let go of connections; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeLag:
    """How far the checks are behind: the latest start's delay in seconds, and how many are overdue now."""

    seconds: float
    overdue: int


class Observer(Protocol):
    """Hears what happened, for metrics and logs. Must return at once and never raise."""

    def committed(self, batch: Batch, took: float) -> None:
        """A batch is durable; `took` seconds in the store."""
        ...

    def published(self, revision: int, woken: int) -> None:
        """The snapshot of `revision` is public and `woken` watchers were told to look."""
        ...

    def delivered(self, took: float) -> None:
        """The last of the watchers woken by one publication has been shown it, `took` seconds after the commit."""
        ...

    def answered(self, operation: str, code: int, took: float) -> None:
        """A request was answered with the HTTP status `code` after `took` seconds."""
        ...

    def refused(self, operation: str, error: Exception) -> None:
        """A request was turned down."""
        ...

    def probed(self, key: Key, check: Check, outcome: Outcome) -> None:
        """A probe finished."""
        ...

    def lagged(self, lag: ProbeLag) -> None:
        """The state of the check schedule, told about once a second."""
        ...

    def guarded(self, service: str, held: int) -> None:
        """The guard of a service holds back `held` expiries (0: let go)."""
        ...


SendResponse = Callable[[int, bytes], bool]
"""Says a whole HTTP answer in one write: the status, and everything behind the status line and the date. False if this
one must be said as ASGI has it."""
SEND_RESPONSE: Final = "adsum.send_response"
"""Where a server puts its `SendResponse`: in the state of each request's ASGI scope."""
SendChunk = Callable[[bytes], bool]
"""Says a further piece of an endless HTTP answer. False if the peer has yet to take what was said before."""
SEND_CHUNK: Final = "adsum.send_chunk"
"""Where a server puts its `SendChunk`, likewise."""
AbortIfSilent = Callable[[float], Callable[[], bool]]
"""Ends the connection of an HTTP answer when the peer's system acknowledges nothing of what was sent for so many
seconds, where the platform can do that. Returns what says whether it ended so."""
ABORT_IF_SILENT: Final = "adsum.abort_if_silent"
"""Where a server puts its `AbortIfSilent`, likewise."""
