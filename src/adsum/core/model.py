"""The model: what providers declare, and what the catalog lists.

Values are frozen and always valid: constructors raise `Invalid`, naming the field. Lengths of time (`ttl`, `grace`,
`interval`) are seconds. Instants on the wall clock (`since`, `at`) are seconds since 1970. They are for people and
never compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr

from adsum.core import validation
from adsum.core.addresses import format_host_port
from adsum.core.errors import Invalid
from adsum.core.identity import HostPort, Place, ProcessIdentity, canonical_address, canonical_place
from adsum.core.instance_texts import require_metadata, require_tags
from adsum.core.memory_sizes import CHECK_BYTES, LISTING_BYTES, text_size
from adsum.core.provenance import Provenance

MAX_WEIGHT: Final = 1000
MAX_CHECKS: Final = 8
MAX_HEADERS: Final = 16
MAX_STREAK: Final = 100
MIN_TTL, MAX_TTL = 1.0, 86_400.0
MIN_INTERVAL, MAX_INTERVAL = 0.1, 3_600.0
MAX_TIMEOUT: Final = 60.0
MAX_GRACE: Final = 7 * 86_400.0
MAX_OVERRIDE: Final = 30 * 86_400.0

MAX_SHARED_SIZES: Final = 4_096
"""Different sizes of registrations that share one number. Past it those used longest ago are no longer shared."""

DEFAULT_TTL: Final = 15.0
DEFAULT_GRACE: Final = 60.0

EMPTY_MAPPING: Final[Mapping[str, str]] = MappingProxyType({})


def empty_mapping() -> Mapping[str, str]:
    """Returns `EMPTY_MAPPING`, as the default of fields."""
    return EMPTY_MAPPING


def freeze(pairs: Mapping[str, str]) -> Mapping[str, str]:
    """Returns an immutable copy of the pairs."""
    return MappingProxyType(dict(pairs)) if pairs else EMPTY_MAPPING


class Key(NamedTuple):
    """The name of an instance in the catalog."""

    service: str
    id: str

    def __str__(self) -> str:
        return f"{self.service}/{self.id}"


class Status(StrEnum):
    """The status of an instance: four by evidence, from best to worst, then two that are declared."""

    PASSING = "passing"
    WARNING = "warning"
    STARTING = "starting"
    CRITICAL = "critical"
    DRAINING = "draining"
    MAINTENANCE = "maintenance"


_SEVERITY: Final = {Status.PASSING: 0, Status.WARNING: 1, Status.STARTING: 2, Status.CRITICAL: 3}


class LeaseState(StrEnum):
    """The state of the lease of a listed instance. An instance whose lease expires is no longer listed."""

    HELD = "held"
    LAPSED = "lapsed"


class CheckKind(StrEnum):
    """The kinds of check. Each has one probe."""

    HTTP = "http"
    TCP = "tcp"
    GRPC = "grpc"


class Result(StrEnum):
    """The result of one probe."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


class Outcome(Struct, frozen=True, gc=False):
    """The outcome of one probe: its result, a note for people, and how many seconds it took.

    The note is cut at `validation.MAX_VALUE_LENGTH`.
    """

    result: Result
    note: str = ""
    took: float = 0.0


class Instance(Struct, frozen=True, gc=False):
    """One running provider, as it declared itself."""

    service: str
    id: str
    address: str
    port: int
    scheme: str = "http"
    zone: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = EMPTY_MAPPING

    def __post_init__(self) -> None:
        validation.service_name("service", self.service)
        validation.instance_id("id", self.id)
        validation.address("address", self.address)
        if not 1 <= self.port <= validation.MAX_PORT:  # A call costs more than the comparison.
            validation.whole_number("port", self.port, 1, validation.MAX_PORT)
        validation.scheme("scheme", self.scheme)
        if self.zone:
            validation.text("zone", self.zone)
        if not 0 <= self.weight <= MAX_WEIGHT:
            validation.whole_number("weight", self.weight, 0, MAX_WEIGHT)
        if self.tags:
            require_tags(self.tags)
        if self.metadata:
            require_metadata(self.metadata)

    @property
    def key(self) -> Key:
        return Key(self.service, self.id)

    @property
    def place(self) -> Place:
        """The place where clients reach the instance."""
        return canonical_place(self.address, self.port, self.scheme)

    @property
    def host_port(self) -> HostPort:
        """The address and port of the place."""
        return HostPort(canonical_address(self.address), self.port)

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return format_host_port(self.address, self.port)

    @property
    def url(self) -> str:
        """`scheme://host:port`, without a path."""
        return f"{self.scheme}://{self.authority}"


class Check(Struct, frozen=True, gc=False):
    """A health check: what to probe, how often, and after how many outcomes in a row the status changes.

    The probe goes to the instance's own address, to `port` if it is set, else to the instance's port. `rise` passes in
    a row make the check passing, `fall` fails in a row make it critical. A starting check is passing after one pass.

    For http: `path`, `method`, `headers`, `tls`, and `expect`, the accepted status codes as inclusive ranges. For grpc:
    `grpc_service`, the service name in the request of grpc.health.v1 ("" is the whole server), and `tls`.
    """

    name: str
    kind: CheckKind
    interval: float = 10.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    port: int | None = None
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = EMPTY_MAPPING
    expect: tuple[tuple[int, int], ...] = ((200, 299),)
    grpc_service: str = ""
    tls: bool = False

    def __post_init__(self) -> None:
        validation.instance_id("name", self.name)
        validation.seconds("interval", self.interval, MIN_INTERVAL, MAX_INTERVAL)
        validation.seconds("timeout", self.timeout, 0.01, MAX_TIMEOUT)
        validation.whole_number("rise", self.rise, 1, MAX_STREAK)
        validation.whole_number("fall", self.fall, 1, MAX_STREAK)
        if self.port is not None:
            validation.whole_number("port", self.port, 1, validation.MAX_PORT)
        validation.text("path", self.path, validation.MAX_VALUE_LENGTH)
        if not self.path.startswith("/") or not self.path.isascii() or " " in self.path:
            raise Invalid("path", "must start with / and be plain ASCII without spaces; percent-encode the rest")
        if self.method not in ("GET", "HEAD", "POST", "OPTIONS"):
            raise Invalid("method", "must be GET, HEAD, POST or OPTIONS")
        validation.headers("headers", self.headers, MAX_HEADERS)
        if not 1 <= len(self.expect) <= MAX_HEADERS:
            raise Invalid("expect", f"must be 1 to {MAX_HEADERS} ranges of statuses")
        for low, high in self.expect:
            if not 100 <= low <= high <= 599:
                raise Invalid("expect", "must be statuses from 100 to 599, the lower first")
        validation.text("grpc_service", self.grpc_service)


class Registration(Struct, frozen=True, gc=False):
    """A request to be listed: an instance, and how it proves that it is alive.

    `ttl` is the length of its lease in seconds (None: no lease, listed until deregistered). `grace` is how long the
    instance stays listed as critical after its lease lapsed. `holder` names the process that holds the lease, so that a
    predecessor with the same id can't renew or deregister its successor; "" names no process.
    """

    instance: Instance
    ttl: float | None = DEFAULT_TTL
    grace: float = DEFAULT_GRACE
    checks: tuple[Check, ...] = ()
    holder: str = ""
    size: int = 0
    """Bytes of memory in a registry, estimated: computed, whatever is given."""

    def __post_init__(self) -> None:
        if self.ttl is not None and not MIN_TTL <= self.ttl <= MAX_TTL:
            validation.seconds("ttl", self.ttl, MIN_TTL, MAX_TTL)
        if not 0.0 <= self.grace <= MAX_GRACE:
            validation.seconds("grace", self.grace, 0.0, MAX_GRACE)
        if self.holder:
            validation.text("holder", self.holder)
        if self.checks:
            _require_checks(self.checks)
        force_setattr(self, "size", _memory_size(self.instance, self.checks))

    @property
    def key(self) -> Key:
        return self.instance.key

    @property
    def identity(self) -> ProcessIdentity:
        """The process that holds the lease, and its place. Evidence belongs to it."""
        return ProcessIdentity.from_holder(self.holder, self.instance.place)


def _memory_size(instance: Instance, checks: Iterable[Check]) -> int:
    """Estimates the bytes of memory of a registration. The estimate is too high if it shares texts with others."""
    size = LISTING_BYTES
    if instance.tags:
        size += require_tags(instance.tags)
    if instance.metadata:
        size += require_metadata(instance.metadata)
    for check in checks:
        size += CHECK_BYTES + text_size(check.path)
        for name, value in check.headers.items():
            size += text_size(name) + text_size(value)
    return _shared_size(size)


@lru_cache(MAX_SHARED_SIZES)
def _shared_size(size: int) -> int:
    """Returns the number as an object that equal numbers share, to save memory."""
    return size


def _require_checks(checks: Sequence[Check]) -> None:
    if len(checks) > MAX_CHECKS:
        raise Invalid("checks", f"must be at most {MAX_CHECKS}, not {len(checks)}")
    if len({check.name for check in checks}) != len(checks):
        raise Invalid("checks", "must have different names")


class Override(Struct, frozen=True, gc=False):
    """A declared status that outranks evidence, with its author and reason.

    `length` is how many seconds it lasts; None lasts until it is cleared. The time starts when it is set, and again
    when the registry restarts, because late is better than wrong. `holder` is set if the provider itself declared it: a
    later registration by another holder clears it.
    """

    status: Status
    author: str
    reason: str = ""
    length: float | None = None
    holder: str | None = None
    at: float = 0.0

    def __post_init__(self) -> None:
        if self.status not in (Status.DRAINING, Status.MAINTENANCE):
            raise Invalid("status", "must be draining or maintenance")
        validation.text("author", self.author)
        validation.text("reason", self.reason, validation.MAX_VALUE_LENGTH)
        if self.length is not None:
            validation.seconds("length", self.length, 1.0, MAX_OVERRIDE)


MAX_SHARED_STATUSES: Final = 4_096
"""Different sets of check statuses that listings share. Past it those used longest ago are no longer shared."""

_NO_CHECKS: Final[Mapping[str, Status]] = MappingProxyType({})


def freeze_statuses(checks: Mapping[str, Status]) -> Mapping[str, Status]:
    """Returns an immutable copy of the statuses of checks by name. Equal copies are one object, to save memory."""
    if not checks:
        return _NO_CHECKS
    return _frozen_statuses(tuple(checks.items()))


@lru_cache(MAX_SHARED_STATUSES)
def _frozen_statuses(checks: tuple[tuple[str, Status], ...]) -> Mapping[str, Status]:
    return MappingProxyType(dict(checks))


class Listing(Struct, frozen=True, gc=False):
    """The catalog's entry for an instance: its registration, the evidence, the override and the resulting status.

    `checks` holds the status of each check by name. `provenance` is that of the last change of any field. `since` is
    when the status changed last. `owner` is the principal that registered the instance; "" if it proved nothing.
    """

    registration: Registration
    provenance: Provenance
    lease: LeaseState = LeaseState.HELD
    checks: Mapping[str, Status] = _NO_CHECKS
    override: Override | None = None
    since: float = 0.0
    owner: str = ""
    status: Status = Status.PASSING
    """Computed, whatever is given."""

    def __post_init__(self) -> None:
        status = self.override.status if self.override is not None else self.evidence
        if self.status is not status:
            force_setattr(self, "status", status)

    @property
    def evidence(self) -> Status:
        """The worst status of lease and checks, without the override."""
        if self.lease is LeaseState.LAPSED:
            return Status.CRITICAL
        if not self.checks:
            return Status.PASSING
        return max(self.checks.values(), key=_SEVERITY.__getitem__)

    @property
    def instance(self) -> Instance:
        return self.registration.instance

    @property
    def key(self) -> Key:
        return self.registration.instance.key


class Endpoint(Struct, frozen=True, gc=False):
    """An instance as a consumer sees it.

    `holder_digest` identifies the instance's holder: it changes when another process takes the id. "" if the holder is
    not known.
    """

    instance: Instance
    status: Status = Status.PASSING
    holder_digest: str = ""

    @property
    def id(self) -> str:
        return self.instance.id

    @property
    def identity(self) -> ProcessIdentity:
        """The process, by its digest. The statistics of a consumer belong to it."""
        return ProcessIdentity(self.holder_digest, self.instance.place)

    @property
    def service(self) -> str:
        return self.instance.service

    @property
    def address(self) -> str:
        return self.instance.address

    @property
    def port(self) -> int:
        return self.instance.port

    @property
    def zone(self) -> str:
        return self.instance.zone

    @property
    def weight(self) -> int:
        return self.instance.weight

    @property
    def authority(self) -> str:
        return self.instance.authority

    @property
    def url(self) -> str:
        return self.instance.url
