"""Translates instances to Consul's services and back.

Facts without a field in Consul are in the service's metadata, with names that begin with `adsum-`. Consul's id of a
service is unique on its agent, an instance id only within its service. So Consul's id is `SERVICE:ID`. The holder is in
the metadata and in the id of the TTL check: a later registration of the same instance has another TTL check, so the
earlier holder can't keep it alive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from adsum.core.addresses import format_host_port
from adsum.core.errors import Invalid
from adsum.core.identity import holder_digest
from adsum.core.model import Check, CheckKind, Endpoint, Instance, Listing, Registration, Status, freeze
from adsum.core.provenance import Cause, Provenance
from adsum.core.tls_schemes import check_uses_tls
from adsum.core.validation import MAX_ID_LENGTH

METADATA_PREFIX: Final = "adsum-"
"""The prefix of the names of Adsum's own metadata."""
ID, HOLDER, SCHEME, ZONE, UNWEIGHTED = (
    f"{METADATA_PREFIX}{name}" for name in ("id", "holder", "scheme", "zone", "unweighted")
)
MAX_PAIRS, MAX_VALUE = 64, 512
"""Consul's bounds of a service's metadata: pairs, and bytes of a value."""
DRAINING_REASON: Final = "adsum: draining"
"""The beginning of a maintenance's reason if the maintenance stands for a drain."""
MIN_DEREGISTER_AFTER: Final = 60.0
"""Seconds: the shortest time for which a service must be critical before Consul deregisters it."""

_PAIR = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._:@-]+")
_NODE_MAINTENANCE = "_node_maintenance"
_MAINTENANCE = "_service_maintenance:"


class ConsulNode(Struct, frozen=True, rename="pascal"):
    """The node of an agent."""

    node: str
    address: str = ""


class ConsulWeights(Struct, frozen=True, rename="pascal"):
    """The weights of a service while it is passing and while it is warning."""

    passing: int = 1
    warning: int = 1


class ConsulService(Struct, frozen=True, rename="pascal"):
    """A service on a node, which Adsum calls an instance."""

    id: str = msgspec.field(name="ID")
    address: str | None = ""
    port: int = 0
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    weights: ConsulWeights | None = None


class ConsulCheck(Struct, frozen=True, rename="pascal"):
    """The state of a check of a node or service."""

    check_id: str = msgspec.field(name="CheckID")
    status: str = "critical"
    notes: str | None = ""


class HealthEntry(Struct, frozen=True, rename="pascal"):
    """An entry of the answer of `/v1/health/service/…`."""

    node: ConsulNode
    service: ConsulService
    checks: list[ConsulCheck] | None = None


def consul_id(service: str, id: str) -> str:
    return f"{service}:{id}"


def ttl_check_id(registration: Registration) -> str:
    """Returns the id of the TTL check, which the holder's renewals pass."""
    key = registration.key
    return f"{METADATA_PREFIX}{consul_id(*key)}:{registration.holder}"


def registration_body(registration: Registration) -> dict[str, Any]:
    """Returns the body that registers the instance at an agent. Raises `Invalid` for what Consul can't represent."""
    instance = registration.instance
    adsum_meta = {ID: instance.id, HOLDER: registration.holder}
    if instance.scheme != "http":
        adsum_meta[SCHEME] = instance.scheme
    if instance.zone:
        adsum_meta[ZONE] = instance.zone
    if not instance.weight:
        adsum_meta[UNWEIGHTED] = "true"
    _validate_metadata(instance, MAX_PAIRS - len(adsum_meta))
    checks = [_check(number, check, instance) for number, check in enumerate(registration.checks)]
    if registration.ttl is not None:
        deregister_after = max(MIN_DEREGISTER_AFTER, registration.grace)
        checks.append(
            {
                "CheckID": ttl_check_id(registration),
                "Name": "renews",
                "TTL": _duration(registration.ttl),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": _duration(deregister_after),
            }
        )
    weight = max(1, instance.weight)
    return {
        "ID": consul_id(*registration.key),
        "Name": instance.service,
        "Address": instance.address,
        "Port": instance.port,
        "Tags": list(instance.tags),
        "Meta": {**instance.metadata, **adsum_meta},
        "Weights": {"Passing": weight, "Warning": weight},
        "Checks": checks,
    }


def decode_entries(service: str, entries: Sequence[HealthEntry]) -> dict[str, Endpoint]:
    """Returns the endpoints of the entries by instance id. Entries that can't be called are left out."""
    endpoints = {}
    for entry in entries:
        status = _status(entry.checks or ())
        instance = _instance(service, entry, status)
        if instance is not None:
            process = holder_digest((entry.service.meta or {}).get(HOLDER, ""))
            endpoints[instance.id] = Endpoint(instance, status, process)
    return endpoints


def decode_service(service: str, consul_service: ConsulService) -> Listing | None:
    """Returns the listing of a service that was registered by Adsum; None if it can't be called."""
    instance = _instance(service, HealthEntry(ConsulNode(""), consul_service), Status.PASSING)
    if instance is None:
        return None
    holder = (consul_service.meta or {}).get(HOLDER, "")
    return Listing(Registration(instance, holder=holder), Provenance(Cause.REGISTERED, ""))


def _instance(service: str, entry: HealthEntry, status: Status) -> Instance | None:
    listed = entry.service
    meta, weights = listed.meta or {}, listed.weights or ConsulWeights()
    weight = weights.warning if status is Status.WARNING else weights.passing
    try:
        return Instance(
            service,
            # Consul's own ids are unique only on their node.
            meta.get(ID) or _id(f"{listed.id}@{entry.node.node}"),
            listed.address or entry.node.address,
            listed.port,
            scheme=meta.get(SCHEME, "http"),
            zone=meta.get(ZONE, ""),
            weight=0 if UNWEIGHTED in meta else min(weight, 1000),
            tags=tuple(listed.tags or ()),
            metadata=freeze({name: value for name, value in meta.items() if not name.startswith(METADATA_PREFIX)}),
        )
    except Invalid:
        return None  # Another program registered it, and the model can't represent it.


def _status(checks: Iterable[ConsulCheck]) -> Status:
    """Returns the status as Consul aggregates it: maintenance before critical before warning."""
    status = Status.PASSING
    for check in checks:
        if check.check_id == _NODE_MAINTENANCE or check.check_id.startswith(_MAINTENANCE):
            return Status.DRAINING if (check.notes or "").startswith(DRAINING_REASON) else Status.MAINTENANCE
        if check.status == "warning" and status is Status.PASSING:
            status = Status.WARNING
        elif check.status not in ("passing", "warning"):
            status = Status.CRITICAL
    return status


def _id(text: str) -> str:
    return _NOT_IN_AN_ID.sub("-", text).lstrip("._:@-")[:MAX_ID_LENGTH]


def _validate_metadata(instance: Instance, max_pairs: int) -> None:
    """Raises `Invalid` for metadata that Consul does not accept."""
    if len(instance.metadata) > max_pairs:
        raise Invalid("metadata", f"must be at most {max_pairs} pairs in Consul, not {len(instance.metadata)}")
    for name, value in instance.metadata.items():
        if not _PAIR.fullmatch(name) or name.startswith((METADATA_PREFIX, "consul-")):
            raise Invalid(
                f"metadata.{name}",
                f"must be letters, digits, _ and - in Consul, not beginning with {METADATA_PREFIX} or consul-",
            )
        if len(value.encode()) > MAX_VALUE:
            raise Invalid(f"metadata.{name}", f"must be at most {MAX_VALUE} bytes in Consul")


def _check(number: int, check: Check, instance: Instance) -> dict[str, Any]:
    """Returns the check for the agent. Raises `Invalid` for what Consul can't check."""
    name = consul_id(instance.service, instance.id)
    body: dict[str, Any] = {
        "CheckID": f"{METADATA_PREFIX}{name}:check:{check.name}",
        "Name": check.name,
        "Interval": _duration(check.interval),
        "Timeout": _duration(check.timeout),
        "SuccessBeforePassing": check.rise,
        "FailuresBeforeCritical": check.fall,
    }
    target, tls = format_host_port(instance.address, check.port or instance.port), check_uses_tls(instance, check)
    if check.kind is CheckKind.HTTP:
        if check.expect != ((200, 299),):
            raise Invalid(f"checks[{number}].expect", "must be 200-299 in Consul, which supports no other")
        body |= {"HTTP": f"{'https' if tls else 'http'}://{target}{check.path}", "Method": check.method}
        body |= {"Header": {key: [value] for key, value in check.headers.items()}, "TLSSkipVerify": tls}
    elif check.kind is CheckKind.GRPC:
        body |= {
            "GRPC": f"{target}/{check.grpc_service}".rstrip("/"),
            "GRPCUseTLS": tls,
            "TLSSkipVerify": tls,
        }
    else:
        body |= {"TCP": target}
    return body


def _duration(seconds: float) -> str:
    """Returns a duration as Go writes it."""
    return f"{seconds * 1000:.0f}ms"
