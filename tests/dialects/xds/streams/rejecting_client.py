"""A fake Envoy that rejects clusters, and may answer a response later than it applies it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from types import ModuleType

from envoy.config.cluster.v3.cluster_pb2 import Cluster

from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.subscribers import GatewaySubscribers
from adsum.gateway.resources.resources import ResourceKind
from tests.dialects.xds.fakes import CDS, EDS, LDS, RDS, Contents, FakeXdsClient, ReceivedResponse, resources

WRONG = "Invalid path: /etc/ssl/no-such-file.pem"
MAX_RESPONSES = 100
"""Responses to one client after which a test fails, since they seem to be endless."""


class RejectingClient(FakeXdsClient):
    """A client that applies the valid part of a response, subscribes to assignments, then answers, as Envoy does."""

    def __init__(self, variant: ModuleType, subscribers: GatewaySubscribers | None = None) -> None:
        self.subscribers = subscribers or GatewaySubscribers()
        super().__init__(variant, StreamSession(variant, self.subscribers))
        self.wrong: dict[str, int] = {}
        """The content of each cluster that it rejects, by name."""
        self.refusals = 0
        self.used: dict[str, Cluster] = {}
        """The latest version of each cluster that it has accepted."""
        self._unanswered: dict[ResourceKind, str] = {}
        """The kinds of the responses that it has not answered, each with the reason to reject it, "" for none."""

    def publish(self, contents: Contents, *, encrypted: Container[str] = ()) -> None:
        """Publishes resources. `encrypted`: the names of the clusters with TLS."""
        number = self.subscribers.publication + 1
        tables = resources(contents)
        tables[CDS] = {name: replace(found, has_tls=name in encrypted) for name, found in tables[CDS].items()}
        self.subscribers.publish(tables, number, 10 * number)

    def connect(self) -> None:
        self.request(CDS)
        self.settle()
        self.request(LDS)
        self.settle()
        self.request(RDS, "main")
        self.settle()

    def take(self) -> ReceivedResponse | None:
        """Applies the next response and subscribes to the assignments of its clusters, but does not answer it."""
        response = self.receive()
        if response is not None:
            self._unanswered[response.kind] = self._apply_clusters(response) if response.kind is CDS else ""
        return response

    def answer(self) -> None:
        """Answers the oldest response that is not answered yet, if there is one."""
        for kind in list(self._unanswered)[:1]:
            self.ack(kind, self._unanswered.pop(kind))

    def settle(self) -> list[ReceivedResponse]:
        responses: list[ReceivedResponse] = []
        while len(responses) < MAX_RESPONSES:
            while self._unanswered:
                self.answer()
            response = self.take()
            if response is None:
                return responses
            responses.append(response)
        raise AssertionError("the responses don't end")

    def rejects(self, name: str, content: int) -> bool:
        """Returns whether it rejects this version of a cluster."""
        return self.wrong.get(name) == content

    def cluster(self, name: str) -> Cluster:
        return Cluster.FromString(bytes.fromhex(self.resources[CDS][name]))

    def cause(self, name: str) -> str:
        metadata = self.cluster(name).metadata.filter_metadata["adsum"]
        return str(metadata["cause"]) if "cause" in metadata else ""

    def _apply_clusters(self, response: ReceivedResponse) -> str:
        clusters = {name: Cluster.FromString(content) for name, content in response.resources.items()}
        rejected = [
            name
            for name, cluster in clusters.items()
            if not is_substitute(cluster) and self.rejects(name, int(cluster.alt_stat_name))
        ]
        gone = set(response.removed) if self.is_delta else self.used.keys() - clusters.keys()
        self.used = {name: cluster for name, cluster in self.used.items() if name not in gone}
        self.used |= {name: cluster for name, cluster in clusters.items() if name not in rejected}
        self._subscribe()
        self.refusals += bool(rejected)
        wrong = ", ".join(f"{name}: {WRONG}" for name in rejected)
        return f"Error adding/updating cluster(s) {wrong}" if rejected else ""

    def _subscribe(self) -> None:
        """Subscribes to the assignments of exactly the clusters that it uses."""
        wanted = {name for name, cluster in self.used.items() if not is_substitute(cluster)}
        have = set(self.names.get(EDS, []))
        if wanted == have:
            return
        if self.is_delta:
            self.request(EDS, *sorted(wanted - have), resource_names_unsubscribe=sorted(have - wanted))
            self.names[EDS] = sorted(wanted)
        else:
            self.request(EDS, *sorted(wanted), nonce=self.nonces.get(EDS, ""))


def is_substitute(cluster: Cluster) -> bool:
    """Returns whether this is the substitute for a cluster that was rejected."""
    return bool(cluster.type == Cluster.STATIC and cluster.HasField("load_assignment"))
