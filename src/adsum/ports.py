"""The ports: interfaces to time, storage, other nodes, probes and observers.

The core never imports them. The composition root (`daemon`) passes implementations to the packages that use them.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, Protocol

from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.model import Check, Instance, Key, Outcome
from adsum.core.nodes.sharding import Peer


class Clock(Protocol):
    """A clock. Decisions use `now`. `wall` is for people and is never compared."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Seconds since 1970."""
        ...

    async def sleep(self, length: float) -> None:
        """Returns after `length` seconds. A length of zero or less yields once to other tasks."""
        ...


class Store(Protocol):
    """Keeps batches durably, in one order.

    One registry opens a store, follows `watch` until it stops, and makes one call of `commit` or `confirm` at a time.
    Every method but `close` raises `StoreUnavailable` while the store can't be reached.
    """

    @property
    def is_shared(self) -> bool:
        """True if other nodes and programs may write to the store.

        If not, nothing lies between the revision that a batch was decided on and its own. So the registry applies its
        batches as soon as `commit` returns, which may be before `watch` yields them.
        """
        ...

    def join(self, name: str) -> Sharding:
        """Makes this process the node `name`. It keeps services from `Sharding.start` on until the store is closed.

        Called at most once, before `open`. A process that does not join may follow and write, and keeps nothing.
        """
        ...

    async def open(self) -> None:
        """Opens the store. Raises `StoreOpenFailed` with a sentence for the operator."""
        ...

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        """Writes a batch of at least one fact under a new revision. Returns it once the batch would survive a crash.

        `base_revision` is the revision of the snapshot that the facts were decided on. Raises `StoreConflict` if the
        store has a newer revision. Nothing is written when this or any other error is raised.
        """
        ...

    async def confirm(self, base_revision: int) -> None:
        """Raises `StoreConflict` if any node committed something after `base_revision` before this was called.

        If it returns, a request that changes nothing was decided on the newest snapshot, and can be answered.
        """
        ...

    async def wait_for_turn(self) -> None:
        """Returns when this node should write next, which is at once unless other nodes write at the same time.

        It takes a bounded time, and is only a courtesy: a node that does not wait has conflicts more often.
        """
        ...

    def watch(self) -> AsyncIterator[FullState | Batch]:
        """Yields the full state, then every batch in order, including those of this node.

        Another `FullState` may follow when the stream was interrupted and can't resume. Its epoch may be another one.
        """
        ...

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        """Returns the newest recorded changes, newest first, at most `limit`, of one service or instance if given.

        A store keeps the latest `MAX_HISTORY_PER_SERVICE` changes of each service over restarts (memory: until it
        ends). Past `MAX_HISTORY` in all, it deletes the oldest of the service that has the most.
        """
        ...

    async def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> Sequence[RecordedEdit]:
        """Returns the newest recorded edits of these kinds, newest first, at most `limit`, of one name if given.

        Edits with `is_recorded` false are left out. A store keeps the latest `MAX_EDITS` over restarts (memory: until
        it ends), and of one document the latest `MAX_EDITS_PER_DOCUMENT`.
        """
        ...

    def age(self) -> float:
        """Returns the seconds since `watch` was known to be up to date; 0.0 for a store in this process."""
        ...

    def isolated_seconds(self) -> float:
        """Returns the seconds for which this node could not write; 0.0 while it can. It may still receive new batches.

        One of several nodes keeps nothing meanwhile.
        """
        ...

    def condition(self) -> Mapping[str, str]:
        """Returns facts about the store for people, by name: its version, its leader, and `trouble` if it has any."""
        ...

    async def close(self) -> None:
        """Closes the store. Committed batches stay. Idempotent."""
        ...


class Sharding(Protocol):
    """The division of services among the nodes of a registry."""

    @property
    def id(self) -> str:
        """The id of this run of this node; no other run has it."""
        ...

    @property
    def kept_shards(self) -> Set[int]:
        """The shards that this node keeps now. It is another object after each change."""
        ...

    def advertise(self, url: str) -> None:
        """Sets the URL at which other nodes reach this one. Called once, before the store is opened."""
        ...

    async def start(self) -> None:
        """Starts to take shards, which other nodes give up. Raises `StoreUnavailable`.

        Called once, when the catalog is loaded and the keeper runs. Until then one of several nodes keeps nothing and
        writes nothing.
        """
        ...

    def keepers(self, service: str) -> Sequence[Peer]:
        """Returns the other nodes that may keep the service: one, or several if it is not certain which.

        Returns none if this node keeps it, or if no node does at the moment.
        """
        ...

    def peers(self) -> Sequence[tuple[Peer, int]]:
        """Returns the other nodes, each with the number of shards that it keeps."""
        ...

    def departed_peers(self) -> Sequence[tuple[Peer, float]]:
        """Returns the nodes that left recently, for whatever reason, each with the seconds since."""
        ...


class Probe(Protocol):
    """Runs a check once. Each kind of check has one implementation."""

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """Probes the instance once, within `check.timeout` seconds.

        Every fault of the instance is an outcome, whose note describes it. Raises `ProbeUnavailable` if the registry
        lacks what a probe needs (file descriptors, ports, memory), which says nothing about the instance.
        """
        ...

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeLag:
    """The lag of the checks: the worst delay of a start in seconds, and the number of overdue checks."""

    seconds: float
    overdue: int


class Observer(Protocol):
    """Receives events, for metrics and logs. Its methods return at once and never raise."""

    def committed(self, batch: Batch, took: float) -> None:
        """A batch is durable. The store took `took` seconds."""
        ...

    def published(self, revision: int, woken: int) -> None:
        """The snapshot of `revision` is published and `woken` watches were woken."""
        ...

    def delivered(self, took: float) -> None:
        """The last watch that a publication woke has sent it, `took` seconds after the publication."""
        ...

    def answered(self, operation: str, code: int, took: float) -> None:
        """A request was answered with the HTTP status `code` after `took` seconds."""
        ...

    def refused(self, operation: str, error: Exception) -> None:
        """A request was refused."""
        ...

    def probed(self, key: Key, check: Check, outcome: Outcome) -> None:
        """A probe finished."""
        ...

    def lagged(self, lag: ProbeLag) -> None:
        """The lag of the checks, reported about once a second."""
        ...

    def guarded(self, service: str, held: int) -> None:
        """The guard holds back `held` expiries of a service. 0: it has disengaged."""
        ...


class ServerCertificates(Protocol):
    """The certificate of this node's servers, which may be replaced while they run."""

    @property
    def version(self) -> int:
        """A number that grows each time that the certificate, the key or the client authorities change."""
        ...

    def ssl_context(self) -> ssl.SSLContext:
        """Returns the context for new connections: the same object until something changes.

        It requests a client certificate, verifies one that is sent, and accepts connections without one.
        """
        ...

    def key_pair(self) -> tuple[bytes, bytes]:
        """Returns the private key and the certificate chain, as PEM."""
        ...

    def client_authorities(self) -> bytes:
        """Returns the certificates of the authorities of client certificates, as PEM."""
        ...


SendResponse = Callable[[int, bytes], bool]
"""Sends a whole HTTP response in one write: the status code, and the bytes after the status line and the date. Returns
False if the response must be sent with the messages of ASGI."""
SEND_RESPONSE: Final = "adsum.send_response"
"""The key of the server's `SendResponse` in the state of each request's ASGI scope."""


class ChunkSender(Protocol):
    """Sends further chunks of a streaming HTTP response that has begun."""

    def __call__(self, data: bytes, /) -> bool:
        """Sends a chunk at once. Returns False, and sends nothing, if the peer does not read or has left."""
        ...

    def close(self) -> None:
        """Sends nothing any more. To be called before the response ends."""
        ...


OpenChunks = Callable[[], ChunkSender | None]
"""Returns the `ChunkSender` of the response under way, None if it has no chunks."""
OPEN_CHUNKS: Final = "adsum.open_chunks"
"""The key of the server's `OpenChunks` in the same state."""
AbortIfSilent = Callable[[float], Callable[[], bool]]
"""Has the connection of a response closed when the peer's system acknowledges no bytes for this many seconds, if the
platform supports that. Returns a function that returns whether the connection was closed for this reason."""
ABORT_IF_SILENT: Final = "adsum.abort_if_silent"
"""The key of the server's `AbortIfSilent` in the same state."""
OnDisconnect = Callable[[Callable[[], None] | None], bool]
"""Has a function called once the client of a response disconnects; None: no longer. Returns whether it is connected. It
stands for a task that waits for `http.disconnect`."""
ON_DISCONNECT: Final = "adsum.on_disconnect"
"""The key of the server's `OnDisconnect` in the same state."""
CLIENT_CERTIFICATE: Final = "adsum.client_certificate"
"""The key of the verified client certificate of the connection (DER) in the same state; missing if it has none."""
