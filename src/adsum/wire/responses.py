"""What the registry answers to writes, lists and questions about itself."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from adsum.core.catalog.changes import RecordedChange


class ResponseBody(Struct, frozen=True, omit_defaults=True):
    """What the registry answers. Readers ignore fields that they don't know."""


class ConsumerView(ResponseBody, frozen=True):
    """A consumer that has not acknowledged, or a node that can't say what its consumers have.

    `name` and `address` are for people, `node` is the node that knows it, `why` is one clause, and `since` is when it
    began to stand so, on the wall clock. Only nodes are told `id`.
    """

    name: str = ""
    address: str = ""
    node: str = ""
    reason: str = ""
    since: float = 0.0
    id: str = ""


class WriteResult(ResponseBody, frozen=True):
    """A write is durable and visible from `revision` on. `ttl`: renew before so many seconds have passed."""

    epoch: str
    revision: int
    ttl: float | None = None
    unacknowledged: int = 0
    """How many cooperating consumers had not said in time that they route by it."""
    waiting: list[ConsumerView] = []
    """Some of these consumers."""
    lost: list[ConsumerView] = []
    """Some of the consumers that were not waited for (any longer), since nothing was heard of them for too long."""
    lost_count: int = 0
    """How many of those there are."""


class AcknowledgementReport(ResponseBody, frozen=True):
    """The cooperating consumers of one node that don't route by what was asked about: see `WriteResult`."""

    epoch: str
    revision: int
    unacknowledged: int
    waiting: list[ConsumerView] = []
    lost: list[ConsumerView] = []
    lost_count: int = 0
    ids: list[str] = []
    """Of consumers that are waited for or lost here, for other nodes to look for."""
    acknowledged: list[str] = []
    """Those consumers among the ones asked about that have acknowledged at this node."""
    goodbyes: list[str] = []
    """Those consumers among the ones asked about that have said good-bye at this node."""


class PeerView(ResponseBody, frozen=True):
    """Another node of the registry, and its share: of how many of the 256 shards it keeps the services."""

    node: str
    url: str
    shards: int


class LostLease(ResponseBody, frozen=True):
    """A lease that could not be renewed: register again."""

    service: str
    id: str
    reason: Literal["unknown", "superseded"]


class RenewalResult(ResponseBody, frozen=True):
    """How many leases were renewed, and those that were not."""

    epoch: str
    revision: int
    renewed: int
    lost: list[LostLease] = []
    not_kept: list[str] = []
    """Told only to a node that passes renewals on: services that are not kept here, so that nobody renewed theirs."""


class ServiceSummary(ResponseBody, frozen=True):
    """A service in the list of all: how many instances stand how."""

    name: str
    revision: int
    instances: int
    status_counts: dict[str, int] = {}


class ServiceList(ResponseBody, frozen=True):
    """Every known service, by name."""

    epoch: str
    revision: int
    services: list[ServiceSummary]


class ChangeView(ResponseBody, frozen=True):
    """A recorded change. `status` is what it led to; "" if the instance left.

    Anyone can claim to be any actor: `peer` is the address that the claim came from, "" if nothing was claimed.
    """

    revision: int
    service: str
    id: str
    cause: str
    actor: str
    at: float
    status: str = ""
    reason: str = ""
    peer: str = ""

    @staticmethod
    def from_recorded(recorded: RecordedChange) -> ChangeView:
        key, why = recorded.key, recorded.provenance
        return ChangeView(
            *(recorded.revision, key.service, key.id, why.cause, why.actor, round(why.at, 3)),
            *(recorded.status, why.reason, why.peer),
        )


class ChangeList(ResponseBody, frozen=True):
    """Recorded changes, newest first."""

    epoch: str
    revision: int
    changes: list[ChangeView]


class GatewayView(ResponseBody, frozen=True):
    """A gateway or gRPC client that a node keeps informed. `since` is on the wall clock.

    `revision` is what it routes by, as far as it said; `rejections` what it does not take or can't use, by kind.
    `requests` are those that a gateway answered since its Envoy began, whoever gave the answer, and `errors` those of
    them that callers got 5xx for; `p50` and `p99` are seconds that those of the last minute or two took, at most 30. A
    gateway says so every 5 s; gRPC clients say nothing of it. `certificate_expires` is when its certificate does, on
    the wall clock; 0 if it shows none.
    """

    node: str
    client: str
    peer: str
    since: float
    revision: int
    rejections: dict[str, str] = {}
    requests: int = 0
    errors: int = 0
    in_progress: int = 0
    p50: float = 0.0
    p99: float = 0.0
    certificate_expires: int = 0


class DisconnectedGatewayView(ResponseBody, frozen=True):
    """A gateway that a node does not keep informed any more: its last stream ended within ten minutes.

    It ended, or another node keeps it informed, or it hears no node and goes on with what it knows: `revision` is what
    it routed by. `disconnected_seconds` is how many seconds it has been so.
    """

    node: str
    client: str
    peer: str
    disconnected_seconds: float
    revision: int


class RefusedStreamView(ResponseBody, frozen=True):
    """A gateway or gRPC client whose streams a node ended for one reason, the last one within ten minutes.

    `node` is the id that it gave, "" if it gave none; `peer` is where the last stream came from. `code` is the gRPC
    status that it was sent, `at` the last time on the wall clock, `count` how many streams there were.
    """

    node: str
    peer: str
    code: str
    reason: str
    at: float
    count: int


class TrafficView(ResponseBody, frozen=True):
    """What the gateways that are connected here answered for a service since each began.

    A request counts once, with the answer that its caller got, however often it was tried; those that found no instance
    count as well. `p50` and `p99` are seconds that answers of instances took in the last minute or two.
    """

    service: str
    requests: int = 0
    errors: int = 0
    p50: float = 0.0
    p99: float = 0.0


class NodeStatus(ResponseBody, frozen=True):
    """A node of the registry: what it keeps and how it fares. Lengths are seconds; `started` is on the wall clock."""

    node: str
    version: str
    ready: bool
    epoch: str
    revision: int
    store: str
    started: float
    uptime: float
    age: float = 0.0
    unready_reason: str = ""
    """Why it is not ready."""
    isolated_seconds: float = 0.0
    """For how long it could neither write nor keep."""
    services: int = 0
    instances: int = 0
    status_counts: dict[str, int] = {}
    """How many instances stand how."""
    catalog_bytes: int = 0
    """How much memory registrations take, about."""
    catalog_max_bytes: int = 0
    """How much they may take; past it what would make them larger is refused."""
    intent_bytes: int = 0
    """How many bytes routes and upstreams have."""
    watches: int = 0
    consumers: int = 0
    """How many cooperating consumers are connected."""
    consumers_departed: int = 0
    """How many consumers left without a good-bye, and are waited for."""
    consumers_lost: int = 0
    """How many consumers were lost in the last minute, or are connected and acknowledge nothing."""
    leases: int = 0
    leases_lapsed: int = 0
    checks: int = 0
    check_lag: float = 0.0
    """How late the latest check was started."""
    checks_overdue: int = 0
    shards: int = 0
    """Of how many of the 256 shards this node keeps the services; alone it keeps all."""
    peers: list[PeerView] = []
    """While this node has no share because it is apart, what they kept last; who keeps what by now is not known."""
    store_condition: dict[str, str] = {}
    """What there is to tell of the store: its version, its leader, what troubles it."""
    guards: dict[str, int] = {}
    """Services whose guard holds back expiries, and how many."""
    gateways: list[GatewayView] = []
    """Gateways and gRPC clients; of many, some, and first those that reject something."""
    gateways_disconnected: list[DisconnectedGatewayView] = []
    """Gateways that are not connected here any more, the latest first."""
    refused_streams: list[RefusedStreamView] = []
    """Gateways and gRPC clients whose streams were ended, the latest first."""
    traffic: list[TrafficView] = []
    """What gateways answered by service; of many, some, and first those with the most errors."""


class Problem(ResponseBody, frozen=True):
    """A problem document (RFC 9457). `field` is the dotted path of the value that is wrong, where there is one."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str = ""
