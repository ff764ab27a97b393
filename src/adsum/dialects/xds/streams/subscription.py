"""What a client asked for of one kind, what it has, and what it is owed. Both variants share this."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from adsum.dialects.xds.streams.errors import invalid_argument
from adsum.gateway.resources.resources import Resource, ResourceKind

WILDCARD: Final = "*"
"""The name that stands for all."""
LEGACY_WILDCARD_KINDS: Final = frozenset({ResourceKind.CLUSTER, ResourceKind.LISTENER})
"""Kinds of which a first request without names asks for all."""


class ResourceLookup(Protocol):
    """What a client is to see now."""

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        """The resource of that name."""
        ...

    def names(self, kind: ResourceKind) -> Iterable[str]:
        """The names of all that there are."""
        ...

    @property
    def max_names(self) -> int:
        """How many names a subscription may have."""
        ...


class SubscriptionChange(NamedTuple):
    """What a request changed: why the last response is rejected ("": it is not), names asked for, names let go."""

    rejection: str
    added: Collection[str]
    removed: Collection[str]


class Subscription:
    """One kind of one stream."""

    __slots__ = (
        "_count",
        "_number",
        "acked",
        "changed_in_flight",
        "in_flight",
        "is_explicit",
        "is_started",
        "kind",
        "leaving",
        "max_names",
        "names",
        "needs_response",
        "nonce",
        "pending",
        "rejected",
        "rejection",
        "sent",
        "versions",
        "wildcard",
    )

    def __init__(self, kind: ResourceKind, max_names: int) -> None:
        self.kind = kind
        self.max_names = max_names
        """How many names it may have; a stream that gives more is ended."""
        self.wildcard = False
        self.names: set[str] = set()
        """Asked for by name."""
        self.is_explicit = False
        """Whether names were ever given: from then on no names means none, and not all."""
        self.is_started = False
        """Whether anything was asked yet."""
        self.versions: dict[str, str] = {}
        """The version of everything that the client has, or is being sent."""
        self.pending: set[str] = set()
        """Names of which something may have to be said."""
        self.needs_response = False
        """Whether an answer is awaited even if there is nothing to say: all were asked for, and there may be none."""
        self.leaving: dict[str, Resource] = {}
        """What the client still has and is to lose, once nothing names it any more; state-of-the-world repeats it."""
        self.in_flight: tuple[str, ...] | None = None
        """The names in the response that is neither acknowledged nor rejected; None: there is no such one."""
        self.changed_in_flight: tuple[str, ...] = ()
        """Those that the client did not have as they are."""
        self.nonce = ""
        """Of the last response."""
        self.rejected: tuple[str, ...] = ()
        """The names in the response that was rejected last, until one is acknowledged."""
        self.rejection = ""
        """Why."""
        self.sent = 0
        """The revision of the last response."""
        self.acked = 0
        """The revision of the last one that was acknowledged."""
        self._number = 0
        self._count = 0

    def includes(self, name: str) -> bool:
        """Whether the client wants to know of it."""
        return self.wildcard or name in self.names

    def add(self, name: str) -> None:
        """The client wants it, whatever it had."""
        if name not in self.names and len(self.names) >= self.max_names:
            raise invalid_argument(f"a subscription of this client may have at most {self.max_names} names")
        self.names.add(name)
        self.versions.pop(name, None)
        self.pending.add(name)

    def remove(self, name: str) -> None:
        """The client no longer asks for it by name; it forgets it, unless it asks for all."""
        self.names.discard(name)
        self.versions.pop(name, None)
        self.leaving.pop(name, None)
        if self.wildcard:
            self.pending.add(name)
            return
        self.pending.discard(name)
        if name in self.rejected:
            self._forgive({name})

    def add_all(self, resources: ResourceLookup) -> None:
        """The client wants all there are."""
        self.wildcard, self.needs_response = True, True
        self.pending.update(resources.names(self.kind))

    def remove_all(self) -> None:
        """The client wants no more than what it named."""
        self.wildcard, self.needs_response = False, False
        for name in [name for name in self.versions if name not in self.names]:
            del self.versions[name]
        self.pending &= self.names
        self.leaving.clear()

    def notify(self, changed: Iterable[str], removed: Mapping[str, Resource]) -> None:
        """Something is no longer as it was; what was rejected gets another chance with it."""
        self.pending.update(changed)
        for name, resource in removed.items():
            self.pending.add(name)
            if name in self.versions:
                self.leaving[name] = resource
        for name in self.rejected:
            self.resend(name)

    def resend(self, name: str) -> None:
        """Say it again, even if it is as it was; the client may have it, and may not."""
        if self.includes(name):
            self.versions[name] = ""
            self.pending.add(name)

    def due(self, resources: ResourceLookup) -> tuple[list[Resource], list[str], list[str]]:
        """What the client lacks; what it asked for and there is not; what it has and is to lose."""
        lacks: list[Resource] = []
        missing: list[str] = []
        gone: list[str] = []
        for name in sorted(self.pending) if len(self.pending) > 1 else tuple(self.pending):
            resource = resources.find(self.kind, name)
            if resource is None:
                if name in self.versions:
                    gone.append(name)
                elif name in self.names:
                    missing.append(name)
                else:
                    self.pending.discard(name)
                continue
            self.leaving.pop(name, None)
            if self.versions.get(name) == resource.version or not self.includes(name):
                self.pending.discard(name)
            else:
                lacks.append(resource)
        return lacks, missing, gone

    def next_nonce(self, publication: int) -> str:
        """For a response at the publication of that number: the same for all streams that say one thing at it."""
        self._count += 1
        nonce = str(publication) if publication != self._number else f"{publication}.{self._count}"
        self._number = publication
        return nonce

    def record_sent(self, nonce: str, revision: int, resources: Iterable[Resource], removed: Iterable[str]) -> None:
        """A response with these is on its way."""
        names, news = [], []
        for resource in resources:
            name = resource.name
            names.append(name)
            if self.versions.get(name) != resource.version:
                news.append(name)
            self.versions[name] = resource.version
            self.pending.discard(name)
            self.leaving.pop(name, None)
        names += removed
        self.forget(removed)
        self.needs_response = False
        self.in_flight, self.changed_in_flight, self.nonce, self.sent = tuple(names), tuple(news), nonce, revision

    def forget(self, names: Iterable[str]) -> None:
        """The client does not have them, and need not be told."""
        for name in names:
            self.versions.pop(name, None)
            self.pending.discard(name)
            self.leaving.pop(name, None)

    def record_answer(self, error: str) -> None:
        """The response on its way was acknowledged (""), or rejected for that reason."""
        if self.in_flight is None:
            return
        if error:
            self.rejected, self.rejection = (
                tuple({**dict.fromkeys(self.rejected), **dict.fromkeys(self.in_flight)}),
                error,
            )
        else:
            self.acked = self.sent
            self._forgive(self.in_flight)
        self.in_flight = None

    def _forgive(self, names: Collection[str]) -> None:
        if self.rejected:
            self.rejected = tuple(name for name in self.rejected if name not in names)
        if not self.rejected:
            self.rejection = ""
