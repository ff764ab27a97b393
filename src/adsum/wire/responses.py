"""Bodies of responses: results of writes, lists, and the status of the registry.

The docstrings of these classes are descriptions in the OpenAPI document.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from adsum.core.catalog.changes import RecordedChange


class ResponseBody(Struct, frozen=True, omit_defaults=True):
    """The body of a response. Readers ignore fields that they don't know."""


class ConsumerView(ResponseBody, frozen=True):
    """A consumer that has not acknowledged a revision, or a node that can't report about its consumers.

    `name` and `address` are for people. `node` is the node that reports the consumer. `reason` says in one clause why
    it has not acknowledged, and `since` when that began, on the wall clock. `id` is sent to other nodes only.
    `principal` is the token or identity that the consumer proved; "" if it proved nothing.
    """

    name: str = ""
    address: str = ""
    node: str = ""
    reason: str = ""
    since: float = 0.0
    id: str = ""
    principal: str = ""


class WriteResult(ResponseBody, frozen=True):
    """The result of a write. It is durable, and visible from `revision` on.

    `ttl`: renew the lease within so many seconds. After a drain with `wait`: `unacknowledged` is the number of
    cooperating consumers that had not acknowledged it in time, and `waiting` names some of them. `lost_count` is the
    number of consumers that were not waited for because they were silent for too long, and `lost` names some of them.
    """

    epoch: str
    revision: int
    ttl: float | None = None
    unacknowledged: int = 0
    waiting: list[ConsumerView] = []
    lost: list[ConsumerView] = []
    lost_count: int = 0


class AcknowledgementReport(ResponseBody, frozen=True):
    """The cooperating consumers of one node that have not acknowledged a revision of a service.

    `unacknowledged`, `waiting`, `lost` and `lost_count` are those of `WriteResult`. `ids` are the ids of these
    consumers, for other nodes to look for. `acknowledged` and `goodbyes` are those consumers of the
    query that have acknowledged at this node, or have said good-bye to it.
    """

    epoch: str
    revision: int
    unacknowledged: int
    waiting: list[ConsumerView] = []
    lost: list[ConsumerView] = []
    lost_count: int = 0
    ids: list[str] = []
    acknowledged: list[str] = []
    goodbyes: list[str] = []


class PeerView(ResponseBody, frozen=True):
    """Another node of the registry. `shards`: how many of the 256 shards it keeps; each service belongs to one."""

    node: str
    url: str
    shards: int


class LostLease(ResponseBody, frozen=True):
    """A lease that could not be renewed: register the instance again.

    `reason` is `unknown` (no such instance is registered) or `superseded` (another process has registered it since).
    """

    service: str
    id: str
    reason: Literal["unknown", "superseded"]


class RenewalResult(ResponseBody, frozen=True):
    """The result of renewals: the number of renewed leases, and the leases that were lost.

    `not_kept` lists services that this node does not keep, so that it renewed none of their leases. It is sent only to
    another node that forwards renewals.
    """

    epoch: str
    revision: int
    renewed: int
    lost: list[LostLease] = []
    not_kept: list[str] = []


class ServiceSummary(ResponseBody, frozen=True):
    """A service in the list of services. `status_counts`: how many instances have which status."""

    name: str
    revision: int
    instances: int
    status_counts: dict[str, int] = {}


class ServiceList(ResponseBody, frozen=True):
    """All known services, by name."""

    epoch: str
    revision: int
    services: list[ServiceSummary]


class ChangeView(ResponseBody, frozen=True):
    """A recorded change. `status` is the status after it, "" if the instance was removed. `at` is on the wall clock.

    The actor is who proved to have made the change; `claimed` is the actor that the request named without proof. `peer`
    is the address that the request came from.
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
    claimed: str = ""

    @staticmethod
    def from_recorded(recorded: RecordedChange) -> ChangeView:
        key, provenance = recorded.key, recorded.provenance
        return ChangeView(
            *(recorded.revision, key.service, key.id, provenance.cause, provenance.actor, round(provenance.at, 3)),
            *(recorded.status, provenance.reason, provenance.peer, provenance.claimed),
        )


class ChangeList(ResponseBody, frozen=True):
    """Recorded changes, newest first."""

    epoch: str
    revision: int
    changes: list[ChangeView]


class GatewayView(ResponseBody, frozen=True):
    """A gateway or gRPC client that is connected to a node. `since` is on the wall clock.

    `revision` is the one that it routes by, as far as it has acknowledged. `rejections` are the resources that it
    rejects or can't use, by kind, with the reason. Of a gateway: `requests` are those that it answered since its Envoy
    started, by itself or by an instance, and `errors` those among them with 5xx. `p50` and `p99` are seconds that the
    responses of the last minute or two took, at most 30. Gateways report these every 5 s; gRPC clients do not.
    `certificate_expires` is when the gateway's certificate expires, on the wall clock; 0 if it has none.
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
    """A gateway whose last stream to this node ended within the last ten minutes.

    The gateway has ended, or is connected to another node, or reaches no node and goes on with its last configuration.
    `revision` is the one that it routed by. `disconnected_seconds`: for how long it has been disconnected.
    """

    node: str
    client: str
    peer: str
    disconnected_seconds: float
    revision: int


class RefusedStreamView(ResponseBody, frozen=True):
    """A gateway or gRPC client whose streams a node ended for one reason, the last one within ten minutes.

    `node` is the id that it sent, "" if it sent none. `peer` is the address of the last stream. `code` is the gRPC
    status that it got. `at` is the last time, on the wall clock. `count` is the number of streams.
    """

    node: str
    peer: str
    code: str
    reason: str
    at: float
    count: int


class TrafficView(ResponseBody, frozen=True):
    """The responses for a service of the gateways that are connected to this node, since each of them started.

    A request counts once, with the response that its caller got, however often it was tried. Requests that found no
    instance count as well. `p50` and `p99` are seconds that responses of instances took in the last minute or two.
    """

    service: str
    requests: int = 0
    errors: int = 0
    p50: float = 0.0
    p99: float = 0.0


class CertificateView(ResponseBody, frozen=True):
    """A certificate that a node uses. `expires` is on the wall clock. `renews`: it is renewed without an operator.

    `name` is `node` for the certificate that the node made, `authority` for that of its authority, `server` for the
    operator's own, and `client-authority` for the authorities of client certificates, of which the first expiry counts.
    """

    name: str
    expires: float
    renews: bool = False


class NodeStatus(ResponseBody, frozen=True):
    """The status of a node. Times are in seconds; `started` is on the wall clock.

    `unready_reason` says why the node is not ready. `isolated_seconds`: for how long it could neither write nor keep
    leases. `status_counts`: how many instances have which status. `catalog_bytes`: about how much memory registrations
    take; past `catalog_max_bytes` the registry refuses what would increase it. `intent_bytes`: the size of routes and
    upstreams. `consumers` are the connected cooperating consumers; `consumers_departed` those that left without a
    good-bye and are waited for; `consumers_lost` those that were lost in the last minute, or are connected and
    acknowledge nothing. `check_lag`: the delay of the latest check. `shards`: how many of the 256 shards this node
    keeps; a single node keeps all. `peers` are the other nodes; while this node is isolated, as it knew them last.
    `store_condition` has entries of the store: its version, its leader, its trouble. `guards`: services whose guard
    holds back expiries, and how many. `gateways` are gateways and gRPC clients; a long list is cut, and those that
    reject something come first. `gateways_disconnected` and `refused_streams` have the latest first. `traffic`: a long
    list is cut, and services with the most errors come first. `security`: `secure` means TLS and tokens, `loopback`
    that only the node's host reaches it, and `insecure` that whoever reaches it may change everything. `certificates`
    are those that the node uses.
    """

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
    isolated_seconds: float = 0.0
    services: int = 0
    instances: int = 0
    status_counts: dict[str, int] = {}
    catalog_bytes: int = 0
    catalog_max_bytes: int = 0
    intent_bytes: int = 0
    watches: int = 0
    consumers: int = 0
    consumers_departed: int = 0
    consumers_lost: int = 0
    leases: int = 0
    leases_lapsed: int = 0
    checks: int = 0
    check_lag: float = 0.0
    checks_overdue: int = 0
    shards: int = 0
    peers: list[PeerView] = []
    store_condition: dict[str, str] = {}
    guards: dict[str, int] = {}
    gateways: list[GatewayView] = []
    gateways_disconnected: list[DisconnectedGatewayView] = []
    refused_streams: list[RefusedStreamView] = []
    traffic: list[TrafficView] = []
    security: str = ""
    certificates: list[CertificateView] = []


class Problem(ResponseBody, frozen=True):
    """A problem document (RFC 9457). `field` is the dotted path of the wrong value, "" if no value is wrong.

    `reason` is a word for programs if access control refused the request, such as `no-credentials`, `expired`,
    `forbidden`, `not-owner` or `invisible`.
    """

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str = ""
    reason: str = ""
