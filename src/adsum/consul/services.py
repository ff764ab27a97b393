"""Instances as Consul lists them. What it has no word for is in the service's metadata, below `adsum-`.

Consul's id of a service is unique on its agent, ours within its service: so it is `<service>:<id>`. Whoever registers
says who he is in the metadata and in the id of the ttl check: a later registration of the same instance has another
check, and the earlier one can't keep it alive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from adsum.core.errors import Invalid
from adsum.core.identity import holder_digest
from adsum.core.model import Check, CheckKind, Endpoint, Instance, Listing, Registration, Status, freeze
from adsum.core.provenance import Cause, Provenance
from adsum.core.tls_schemes import check_uses_tls
from adsum.core.validation import MAX_ID_LENGTH

METADATA_PREFIX: Final = "adsum-"
"""What begins the names of metadata that is ours."""
ID, HOLDER, SCHEME, ZONE, UNWEIGHTED = (
    f"{METADATA_PREFIX}{name}" for name in ("id", "holder", "scheme", "zone", "unweighted")
)
MAX_PAIRS, MAX_VALUE = 64, 512
"""Consul's bounds of a service's metadata."""
DRAINING_REASON: Final = "adsum: draining"
"""What begins the reason of a maintenance that is a drain."""
MIN_DEREGISTER_AFTER: Final = 60.0
"""Seconds that Consul waits at least before it takes out what is critical."""

_PAIR = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._:@-]+")
_NODE_MAINTENANCE = "_node_maintenance"
_MAINTENANCE = "_service_maintenance:"


class ConsulNode(Struct, frozen=True, rename="pascal"):
    """The node that an agent speaks for."""

    node: str
    address: str = ""


class ConsulWeights(Struct, frozen=True, rename="pascal"):
    passing: int = 1
    warning: int = 1


class ConsulService(Struct, frozen=True, rename="pascal"):
    """A service on a node, which we call an instance."""

    id: str = msgspec.field(name="ID")
    address: str | None = ""
    port: int = 0
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    weights: ConsulWeights | None = None


class ConsulCheck(Struct, frozen=True, rename="pascal"):
    """What a check of a node or service says."""

    check_id: str = msgspec.field(name="CheckID")
    status: str = "critical"
    notes: str | None = ""


class HealthEntry(Struct, frozen=True, rename="pascal"):
    """One of the answer of `/v1/health/service/…`."""

    node: ConsulNode
    service: ConsulService
    checks: list[ConsulCheck] | None = None


def consul_id(service: str, id: str) -> str:
    return f"{service}:{id}"


def ttl_check_id(registration: Registration) -> str:
    """The id of the check that says that the instance renews."""
    key = registration.key
    return f"{METADATA_PREFIX}{consul_id(*key)}:{registration.holder}"


def registration_body(registration: Registration) -> dict[str, Any]:
    """The body that registers it at an agent. Raises `Invalid` for what Consul can't list or check."""
    instance = registration.instance
    ours = {ID: instance.id, HOLDER: registration.holder}
    if instance.scheme != "http":
        ours[SCHEME] = instance.scheme
    if instance.zone:
        ours[ZONE] = instance.zone
    if not instance.weight:
        ours[UNWEIGHTED] = "true"
    _fits(instance, MAX_PAIRS - len(ours))
    checks = [_check(number, check, instance) for number, check in enumerate(registration.checks)]
    if registration.ttl is not None:
        forget = max(MIN_DEREGISTER_AFTER, registration.grace)
        checks.append(
            {
                "CheckID": ttl_check_id(registration),
                "Name": "renews",
                "TTL": _length(registration.ttl),
                "Status": "passing",
                "DeregisterCriticalServiceAfter": _length(forget),
            }
        )
    weight = max(1, instance.weight)
    return {
        "ID": consul_id(*registration.key),
        "Name": instance.service,
        "Address": instance.address,
        "Port": instance.port,
        "Tags": list(instance.tags),
        "Meta": {**instance.metadata, **ours},
        "Weights": {"Passing": weight, "Warning": weight},
        "Checks": checks,
    }


def decode_entries(service: str, entries: Sequence[HealthEntry]) -> dict[str, Endpoint]:
    """What the entries stand for, by id; those that can't be called are left out."""
    found = {}
    for entry in entries:
        status = _status(entry.checks or ())
        instance = _instance(service, entry, status)
        if instance is not None:
            process = holder_digest((entry.service.meta or {}).get(HOLDER, ""))
            found[instance.id] = Endpoint(instance, status, process)
    return found


def decode_service(service: str, consul_service: ConsulService) -> Listing | None:
    """What an agent lists under an id that is ours; None if it can't be called."""
    instance = _instance(service, HealthEntry(ConsulNode(""), consul_service), Status.PASSING)
    if instance is None:
        return None
    holder = (consul_service.meta or {}).get(HOLDER, "")
    return Listing(Registration(instance, holder=holder), Provenance(Cause.REGISTERED, ""))


def _instance(service: str, entry: HealthEntry, status: Status) -> Instance | None:
    said = entry.service
    meta, weights = said.meta or {}, said.weights or ConsulWeights()
    weight = weights.warning if status is Status.WARNING else weights.passing
    try:
        return Instance(
            service,
            # Others' ids are unique on their node only.
            meta.get(ID) or _id(f"{said.id}@{entry.node.node}"),
            said.address or entry.node.address,
            said.port,
            scheme=meta.get(SCHEME, "http"),
            zone=meta.get(ZONE, ""),
            weight=0 if UNWEIGHTED in meta else min(weight, 1000),
            tags=tuple(said.tags or ()),
            metadata=freeze({name: value for name, value in meta.items() if not name.startswith(METADATA_PREFIX)}),
        )
    except Invalid:
        # Not ours to judge: somebody wrote what we can't use.
        return None


def _status(checks: Iterable[ConsulCheck]) -> Status:
    """As Consul aggregates it: maintenance before critical before warning."""
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


def _fits(instance: Instance, most: int) -> None:
    if len(instance.metadata) > most:
        raise Invalid("metadata", f"must be at most {most} pairs in Consul, not {len(instance.metadata)}")
    for name, value in instance.metadata.items():
        if not _PAIR.fullmatch(name) or name.startswith((METADATA_PREFIX, "consul-")):
            raise Invalid(
                f"metadata.{name}",
                f"must be letters, digits, _ and - in Consul, not beginning with {METADATA_PREFIX} or consul-",
            )
        if len(value.encode()) > MAX_VALUE:
            raise Invalid(f"metadata.{name}", f"must be at most {MAX_VALUE} bytes in Consul")


def _check(number: int, check: Check, instance: Instance) -> dict[str, Any]:
    """The check, as the agent is to run it. Raises `Invalid` for what Consul can't do."""
    name = consul_id(instance.service, instance.id)
    said: dict[str, Any] = {
        "CheckID": f"{METADATA_PREFIX}{name}:check:{check.name}",
        "Name": check.name,
        "Interval": _length(check.interval),
        "Timeout": _length(check.timeout),
        "SuccessBeforePassing": check.rise,
        "FailuresBeforeCritical": check.fall,
    }
    host = f"[{instance.address}]" if ":" in instance.address else instance.address
    place, tls = f"{host}:{check.port or instance.port}", check_uses_tls(instance, check)
    if check.kind is CheckKind.HTTP:
        if check.expect != ((200, 299),):
            raise Invalid(f"checks[{number}].expect", "must be 200-299 in Consul, which takes no others")
        said |= {"HTTP": f"{'https' if tls else 'http'}://{place}{check.path}", "Method": check.method}
        said |= {"Header": {key: [value] for key, value in check.headers.items()}, "TLSSkipVerify": tls}
    elif check.kind is CheckKind.GRPC:
        said |= {
            "GRPC": f"{place}/{check.grpc_service}".rstrip("/"),
            "GRPCUseTLS": tls,
            "TLSSkipVerify": tls,
        }
    else:
        said |= {"TCP": place}
    return said


def _length(seconds: float) -> str:
    """As Go writes durations."""
    return f"{seconds * 1000:.0f}ms"
