"""A client's subscription to one kind of resources: the names, the versions that it has, and what must be sent.

Both variants share this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from adsum.dialects.xds.streams.errors import invalid_argument
from adsum.dialects.xds.streams.resource_view import ResourceView
from adsum.gateway.resources.resources import Resource, ResourceKind

WILDCARD: Final = "*"
"""The name that subscribes to all resources of a kind."""
LEGACY_WILDCARD_KINDS: Final = frozenset({ResourceKind.CLUSTER, ResourceKind.LISTENER})
"""Kinds for which a first request without names subscribes to all resources."""


class SubscriptionChange(NamedTuple):
    """The changes by a request: the reason of a NACK ("" for none), names subscribed to, names unsubscribed from."""

    rejection: str
    added: Collection[str]
    removed: Collection[str]


class Subscription:
    """The subscription of one stream to one kind."""

    __slots__ = (
        "_last_publication",
        "_response_count",
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
        """The maximum of names; a stream with more is ended."""
        self.wildcard = False
        self.names: set[str] = set()
        """The names subscribed to, without the wildcard."""
        self.is_explicit = False
        """True once a request had names: from then on a request without names subscribes to none instead of all."""
        self.is_started = False
        """True once there was a request."""
        self.versions: dict[str, str] = {}
        """The version of every resource that the client has, or that is being sent to it."""
        self.pending: set[str] = set()
        """The names whose resources may have to be sent."""
        self.needs_response = False
        """True if the client has just subscribed to all resources: it needs a response even if there are none."""
        self.leaving: dict[str, Resource] = {}
        """Resources that the client has and must lose, once nothing refers to them; state-of-the-world repeats them."""
        self.in_flight: tuple[str, ...] | None = None
        """The names in the response that the client has not answered; None if it has answered the last one."""
        self.changed_in_flight: tuple[str, ...] = ()
        """Those names whose resources the client did not have in this version."""
        self.nonce = ""
        """The nonce of the last response."""
        self.rejected: tuple[str, ...] = ()
        """The names in the response that was rejected last, until a response with them is acknowledged."""
        self.rejection = ""
        """The client's reason for that; "" while nothing is rejected."""
        self.sent = 0
        """The revision of the last response."""
        self.acked = 0
        """The revision of the last response that was acknowledged."""
        self._last_publication = 0
        self._response_count = 0

    def includes(self, name: str) -> bool:
        """Returns whether the client wants this resource."""
        return self.wildcard or name in self.names

    @property
    def pending_versions(self) -> Iterator[tuple[str, str]]:
        """The names whose resources may have to be sent and of which the client has a version, with that version."""
        return ((name, self.versions[name]) for name in self.pending if name in self.versions)

    def add(self, name: str) -> None:
        """Subscribes to a name; it is sent whatever the client had. Raises `StreamRefused` past `max_names`."""
        if name not in self.names and len(self.names) >= self.max_names:
            raise invalid_argument(f"a subscription of this client may have at most {self.max_names} names")
        self.names.add(name)
        self.versions.pop(name, None)
        self.pending.add(name)

    def remove(self, name: str) -> None:
        """Unsubscribes from a name. The client drops its resource, but gets it again if it has the wildcard."""
        self.names.discard(name)
        self.versions.pop(name, None)
        self.leaving.pop(name, None)
        if self.wildcard:
            self.pending.add(name)
            return
        self.pending.discard(name)
        if name in self.rejected:
            self._clear_rejection({name})

    def add_all(self, resources: ResourceView) -> None:
        """Subscribes to all resources."""
        self.wildcard, self.needs_response = True, True
        self.pending.update(resources.names(self.kind))

    def remove_all(self) -> None:
        """Unsubscribes from the wildcard; names stay."""
        self.wildcard, self.needs_response = False, False
        for name in [name for name in self.versions if name not in self.names]:
            del self.versions[name]
        self.pending &= self.names
        self.leaving.clear()

    def notify(self, changed: Iterable[str], removed: Mapping[str, Resource]) -> None:
        """Records that resources have changed. What was rejected is sent again with them."""
        self.pending.update(changed)
        for name, resource in removed.items():
            self.pending.add(name)
            if name in self.versions:
                self.leaving[name] = resource
        for name in self.rejected:
            self.resend(name)

    def resend(self, name: str) -> None:
        """Sends a resource again even if it is unchanged, since the client may or may not have it."""
        if self.includes(name):
            self.versions[name] = ""
            self.pending.add(name)

    def due(self, resources: ResourceView) -> tuple[list[Resource], list[str], list[str]]:
        """Returns the pending resources and names, in three parts.

        They are the resources that the client lacks, the names that it wants and that don't exist, and the names of
        resources that it has and that don't exist any more.
        """
        lacking: list[Resource] = []
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
                lacking.append(resource)
        return lacking, missing, gone

    def next_nonce(self, publication: int) -> str:
        """Returns the nonce for a response at a publication: the same for all streams that get the same response."""
        self._response_count += 1
        is_first = publication != self._last_publication
        self._last_publication = publication
        return str(publication) if is_first else f"{publication}.{self._response_count}"

    def record_sent(self, nonce: str, revision: int, resources: Iterable[Resource], removed: Iterable[str]) -> None:
        """Records that a response with these resources and removals is in flight."""
        names, changed = [], []
        for resource in resources:
            name = resource.name
            names.append(name)
            if self.versions.get(name) != resource.version:
                changed.append(name)
            self.versions[name] = resource.version
            self.pending.discard(name)
            self.leaving.pop(name, None)
        names += removed
        self.forget(removed)
        self.needs_response = False
        self.in_flight, self.changed_in_flight, self.nonce, self.sent = tuple(names), tuple(changed), nonce, revision

    def forget(self, names: Iterable[str]) -> None:
        """Records that the client does not have these resources, and needs no message about them."""
        for name in names:
            self.versions.pop(name, None)
            self.pending.discard(name)
            self.leaving.pop(name, None)

    def record_answer(self, error: str) -> None:
        """Records that the client acknowledged the response in flight (""), or rejected it for this reason."""
        if self.in_flight is None:
            return
        if error:
            self.rejected = tuple({**dict.fromkeys(self.rejected), **dict.fromkeys(self.in_flight)})
            self.rejection = error
        else:
            self.acked = self.sent
            self._clear_rejection(self.in_flight)
        self.in_flight = None

    def _clear_rejection(self, names: Collection[str]) -> None:
        if self.rejected:
            self.rejected = tuple(name for name in self.rejected if name not in names)
        if not self.rejected:
            self.rejection = ""
