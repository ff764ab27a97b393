"""What a client asked for of one kind, what it has, and what it is owed. Both variants share this."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from adsum.dialects.xds.telemetry.refusals import malformed
from adsum.gateway.resources.resources import Kind, Resource

ALL: Final = "*"
"""The name that stands for all."""
LEGACY: Final = frozenset({Kind.CLUSTER, Kind.LISTENER})
"""Kinds of which a first request without names asks for all."""


class Sight(Protocol):
    """What a client is to see now."""

    def find(self, kind: Kind, name: str) -> Resource | None:
        """The resource of that name."""
        ...

    def names(self, kind: Kind) -> Iterable[str]:
        """The names of all that there are."""
        ...

    @property
    def most_names(self) -> int:
        """How many names a subscription may have."""
        ...


class Heard(NamedTuple):
    """What a request changed: why the last response is rejected ("": it is not), names asked for, names let go."""

    rejection: str
    added: Collection[str]
    dropped: Collection[str]


class Subscription:
    """One kind of one stream."""

    __slots__ = (
        "_count",
        "_number",
        "acked",
        "asked",
        "explicit",
        "flight",
        "has",
        "kind",
        "leaving",
        "most",
        "names",
        "news",
        "nonce",
        "owed",
        "rejected",
        "sent",
        "unanswered",
        "wildcard",
        "words",
    )

    def __init__(self, kind: Kind, most: int) -> None:
        self.kind = kind
        self.most = most
        """How many names it may have; a stream that gives more is ended."""
        self.wildcard = False
        self.names: set[str] = set()
        """Asked for by name."""
        self.explicit = False
        """Whether names were ever given: from then on no names means none, and not all."""
        self.asked = False
        """Whether anything was asked yet."""
        self.has: dict[str, str] = {}
        """The version of everything that the client has, or is being sent."""
        self.owed: set[str] = set()
        """Names of which something may have to be said."""
        self.unanswered = False
        """Whether an answer is awaited even if there is nothing to say: all were asked for, and there may be none."""
        self.leaving: dict[str, Resource] = {}
        """What the client still has and is to lose, once nothing names it any more; state-of-the-world repeats it."""
        self.flight: tuple[str, ...] | None = None
        """The names in the response that is neither acknowledged nor rejected; None: there is no such one."""
        self.news: tuple[str, ...] = ()
        """Those that the client did not have as they are."""
        self.nonce = ""
        """Of the last response."""
        self.rejected: tuple[str, ...] = ()
        """The names in the response that was rejected last, until one is acknowledged."""
        self.words = ""
        """Why."""
        self.sent = 0
        """The revision of the last response."""
        self.acked = 0
        """The revision of the last one that was acknowledged."""
        self._number = 0
        self._count = 0

    def covers(self, name: str) -> bool:
        """Whether the client wants to know of it."""
        return self.wildcard or name in self.names

    def add(self, name: str) -> None:
        """The client wants it, whatever it had."""
        if name not in self.names and len(self.names) >= self.most:
            raise malformed(f"a subscription of this client may have at most {self.most} names")
        self.names.add(name)
        self.has.pop(name, None)
        self.owed.add(name)

    def drop(self, name: str) -> None:
        """The client no longer asks for it by name; it forgets it, unless it asks for all."""
        self.names.discard(name)
        self.has.pop(name, None)
        self.leaving.pop(name, None)
        if self.wildcard:
            self.owed.add(name)
            return
        self.owed.discard(name)
        if name in self.rejected:
            self._forgive({name})

    def add_all(self, sight: Sight) -> None:
        """The client wants all there are."""
        self.wildcard, self.unanswered = True, True
        self.owed.update(sight.names(self.kind))

    def drop_all(self) -> None:
        """The client wants no more than what it named."""
        self.wildcard, self.unanswered = False, False
        for name in [name for name in self.has if name not in self.names]:
            del self.has[name]
        self.owed &= self.names
        self.leaving.clear()

    def told(self, changed: Iterable[str], removed: Mapping[str, Resource]) -> None:
        """Something is no longer as it was; what was rejected gets another chance with it."""
        self.owed.update(changed)
        for name, resource in removed.items():
            self.owed.add(name)
            if name in self.has:
                self.leaving[name] = resource
        for name in self.rejected:
            self.again(name)

    def again(self, name: str) -> None:
        """Say it again, even if it is as it was; the client may have it, and may not."""
        if self.covers(name):
            self.has[name] = ""
            self.owed.add(name)

    def due(self, sight: Sight) -> tuple[list[Resource], list[str], list[str]]:
        """What the client lacks; what it asked for and there is not; what it has and is to lose."""
        lacks: list[Resource] = []
        missing: list[str] = []
        gone: list[str] = []
        for name in sorted(self.owed) if len(self.owed) > 1 else tuple(self.owed):
            resource = sight.find(self.kind, name)
            if resource is None:
                if name in self.has:
                    gone.append(name)
                elif name in self.names:
                    missing.append(name)
                else:
                    self.owed.discard(name)
                continue
            self.leaving.pop(name, None)
            if self.has.get(name) == resource.version or not self.covers(name):
                self.owed.discard(name)
            else:
                lacks.append(resource)
        return lacks, missing, gone

    def next_nonce(self, number: int) -> str:
        """For a response at the publication of that number: the same for all streams that say one thing at it."""
        self._count += 1
        nonce = str(number) if number != self._number else f"{number}.{self._count}"
        self._number = number
        return nonce

    def say(self, nonce: str, revision: int, resources: Iterable[Resource], gone: Iterable[str]) -> None:
        """A response with these is on its way."""
        names, news = [], []
        for resource in resources:
            name = resource.name
            names.append(name)
            if self.has.get(name) != resource.version:
                news.append(name)
            self.has[name] = resource.version
            self.owed.discard(name)
            self.leaving.pop(name, None)
        names += gone
        self.forget(gone)
        self.unanswered = False
        self.flight, self.news, self.nonce, self.sent = tuple(names), tuple(news), nonce, revision

    def forget(self, names: Iterable[str]) -> None:
        """The client does not have them, and need not be told."""
        for name in names:
            self.has.pop(name, None)
            self.owed.discard(name)
            self.leaving.pop(name, None)

    def answered(self, error: str) -> None:
        """The response on its way was acknowledged (""), or rejected for that reason."""
        if self.flight is None:
            return
        if error:
            self.rejected, self.words = tuple({**dict.fromkeys(self.rejected), **dict.fromkeys(self.flight)}), error
        else:
            self.acked = self.sent
            self._forgive(self.flight)
        self.flight = None

    def _forgive(self, names: Collection[str]) -> None:
        if self.rejected:
            self.rejected = tuple(name for name in self.rejected if name not in names)
        if not self.rejected:
            self.words = ""
