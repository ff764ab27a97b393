"""The nouns: what providers declare and what the catalog says of them.

Every value is frozen and valid from birth: constructors raise `Invalid`, naming the field. Lengths of time (`ttl`,
`grace`, `interval`) are seconds; instants on the wall clock (`since`, `at`) are seconds since 1970, shown to people
and never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core import sizes, validation
from adsum.core.addresses import format_host_port
from adsum.core.errors import Invalid
from adsum.core.identity import Place, ProcessIdentity, canonical_place

MAX_WEIGHT: Final = 1000
MAX_TAGS: Final = 64
MAX_METADATA: Final = 64
MAX_CHECKS: Final = 8
MAX_HEADERS: Final = 16
MAX_STREAK: Final = 100
MIN_TTL, MAX_TTL = 1.0, 86_400.0
MIN_INTERVAL, MAX_INTERVAL = 0.1, 3_600.0
MAX_TIMEOUT: Final = 60.0
MAX_GRACE: Final = 7 * 86_400.0
MAX_OVERRIDE: Final = 30 * 86_400.0

DEFAULT_TTL: Final = 15.0
DEFAULT_GRACE: Final = 60.0

EMPTY_MAPPING: Final[Mapping[str, str]] = MappingProxyType({})


def empty_mapping() -> Mapping[str, str]:
    """No pairs; always the same ones."""
    return EMPTY_MAPPING


def freeze(pairs: Mapping[str, str]) -> Mapping[str, str]:
    """A view of a copy: nobody can change it any more."""
    return MappingProxyType(dict(pairs)) if pairs else EMPTY_MAPPING


class Key(NamedTuple):
    """What names an instance in the catalog."""

    service: str
    id: str

    def __str__(self) -> str:
        return f"{self.service}/{self.id}"


class Status(StrEnum):
    """How an instance stands, from best to worst evidence, then the two that somebody declared."""

    PASSING = "passing"
    WARNING = "warning"
    STARTING = "starting"
    CRITICAL = "critical"
    DRAINING = "draining"
    MAINTENANCE = "maintenance"


_SEVERITY: Final = {Status.PASSING: 0, Status.WARNING: 1, Status.STARTING: 2, Status.CRITICAL: 3}


class LeaseState(StrEnum):
    """Whether the promise to renew is kept. `expired` is no state of a listed instance: it has left the catalog."""

    HELD = "held"
    LAPSED = "lapsed"


class CheckKind(StrEnum):
    """The kinds of check, one probe each."""

    HTTP = "http"
    TCP = "tcp"
    GRPC = "grpc"


class Result(StrEnum):
    """What one probe found."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one probe found, with a note for people (cut at `rules.VALUE_LENGTH`) and how long it took in seconds."""

    result: Result
    note: str = ""
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One running provider as it declared itself."""

    service: str
    id: str
    address: str
    port: int
    scheme: str = "http"
    zone: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=empty_mapping)

    def __post_init__(self) -> None:
        validation.service_name("service", self.service)
        validation.instance_id("id", self.id)
        validation.address("address", self.address)
        validation.whole_number("port", self.port, 1, validation.MAX_PORT)
        validation.scheme("scheme", self.scheme)
        validation.text("zone", self.zone)
        validation.whole_number("weight", self.weight, 0, MAX_WEIGHT)
        if self.tags:
            validation.texts("tags", self.tags, MAX_TAGS)
        if self.metadata:
            validation.mapping("metadata", self.metadata, MAX_METADATA)

    @property
    def key(self) -> Key:
        return Key(self.service, self.id)

    @property
    def place(self) -> Place:
        """Where it is reached."""
        return canonical_place(self.address, self.port, self.scheme)

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return format_host_port(self.address, self.port)

    @property
    def url(self) -> str:
        """`scheme://host:port`, without a path."""
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Check:
    """What to verify, how often, and how many outcomes in a row turn the status.

    The probe goes to the instance's own address, to `port` if set, else to the instance's port. `rise` passes in a
    row make it passing, `fall` fails in a row critical; the first pass of all makes a starting instance passing.

    For http: `path`, `method`, `headers`, `tls`, and `expect`, the accepted statuses as inclusive ranges. For grpc:
    `grpc_service`, the name asked of grpc.health.v1 ("" is the whole server), and `tls`.
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
    headers: Mapping[str, str] = field(default_factory=empty_mapping)
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


@dataclass(frozen=True, slots=True)
class Registration:
    """A request to be listed: an instance plus how it proves that it is alive.

    `ttl` is the length of its lease (None: no lease, listed until deregistered), `grace` how long a lapsed one stays
    listed as critical. `holder` names the process that holds the lease, so that a predecessor with the same id can't
    renew or end its successor's; "" claims nothing.
    """

    instance: Instance
    ttl: float | None = DEFAULT_TTL
    grace: float = DEFAULT_GRACE
    checks: tuple[Check, ...] = ()
    holder: str = ""
    size: int = field(init=False, repr=False, compare=False)
    """Bytes of memory that it takes in a registry, about."""

    def __post_init__(self) -> None:
        if self.ttl is not None:
            validation.seconds("ttl", self.ttl, MIN_TTL, MAX_TTL)
        validation.seconds("grace", self.grace, 0.0, MAX_GRACE)
        validation.text("holder", self.holder)
        if len(self.checks) > MAX_CHECKS:
            raise Invalid("checks", f"must be at most {MAX_CHECKS}, not {len(self.checks)}")
        names = {check.name for check in self.checks}
        if len(names) != len(self.checks):
            raise Invalid("checks", "must have different names")
        object.__setattr__(self, "size", sizes.registration_size(self.instance, self.checks))

    @property
    def key(self) -> Key:
        return self.instance.key

    @property
    def identity(self) -> ProcessIdentity:
        """Who holds it, and where: evidence belongs to that."""
        return ProcessIdentity.from_holder(self.holder, self.instance.place)


@dataclass(frozen=True, slots=True)
class Override:
    """A declared status that outranks evidence, by whom and why.

    `length` is how many seconds it lasts from when it is set, and afresh from a restart of the registry (late is
    better than wrong); None lasts until it is cleared. `holder` is set when the provider itself declared it: a later
    registration by another holder clears it.
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


class Cause(StrEnum):
    """Why a change happened."""

    REGISTERED = "registered"
    REREGISTERED = "reregistered"
    DEREGISTERED = "deregistered"
    LEASE_LAPSED = "lease-lapsed"
    LEASE_RENEWED = "lease-renewed"
    LEASE_EXPIRED = "lease-expired"
    CHECK_PASSING = "check-passing"
    CHECK_WARNING = "check-warning"
    CHECK_CRITICAL = "check-critical"
    DRAINED = "drained"
    MAINTENANCE = "maintenance"
    RESUMED = "resumed"
    OVERRIDE_EXPIRED = "override-expired"
    DECLARED = "declared"
    WITHDRAWN = "withdrawn"
    FORGOTTEN = "forgotten"
    """A service without an instance is no longer known."""
    SUPERSEDED = "superseded"
    """Another process is registered at the instance's place; the reason names it."""
    UNKNOWN = "unknown"
    """A cause of a later version, whose node wrote to the same etcd."""

    @classmethod
    def _missing_(cls, value: object) -> Cause:  # noqa: ARG003 - whatever it is
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class Provenance:
    """The cause and the actor of a change, the reason given, and when on the wall clock.

    Anyone can claim to be any actor. `peer` is the address that such a claim came from; "" if the actor is that address
    itself, or a part of the registry.
    """

    cause: Cause
    actor: str
    reason: str = ""
    at: float = 0.0
    peer: str = ""


MAX_SHARED_STATUSES: Final = 4_096
"""How many different standings are remembered; past it those met longest ago are kept apart from then on."""

_NO_CHECKS: Final[Mapping[str, Status]] = MappingProxyType({})


def _no_checks() -> Mapping[str, Status]:
    return _NO_CHECKS


def freeze_statuses(checks: Mapping[str, Status]) -> Mapping[str, Status]:
    """How checks stand, by their names, frozen. Most instances stand alike: equal ones are the same value."""
    return _standings(tuple(checks.items()))


@lru_cache(MAX_SHARED_STATUSES)
def _standings(checks: tuple[tuple[str, Status], ...]) -> Mapping[str, Status]:
    return MappingProxyType(dict(checks)) if checks else _NO_CHECKS


@dataclass(frozen=True, slots=True)
class Listing:
    """The catalog's entry for an instance: what it declared, the evidence, and why it stands as it does.

    `checks` holds the standing of each check by name. `why` explains the last change of anything in here.
    """

    registration: Registration
    provenance: Provenance
    lease: LeaseState = LeaseState.HELD
    checks: Mapping[str, Status] = field(default_factory=_no_checks)
    override: Override | None = None
    since: float = 0.0
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", self.override.status if self.override else self.evidence)

    @property
    def evidence(self) -> Status:
        """The worst of lease and checks, whatever the override says."""
        if self.lease is LeaseState.LAPSED:
            return Status.CRITICAL
        return max(self.checks.values(), key=_SEVERITY.__getitem__, default=Status.PASSING)

    @property
    def instance(self) -> Instance:
        return self.registration.instance

    @property
    def key(self) -> Key:
        return self.registration.instance.key


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An instance as a consumer sees it.

    `process` is a digest of the instance's holder: it changes when another process takes the id. "" if nothing is known
    of the holder.
    """

    instance: Instance
    status: Status = Status.PASSING
    holder_digest: str = ""

    @property
    def id(self) -> str:
        return self.instance.id

    @property
    def identity(self) -> ProcessIdentity:
        """The process that is there, by its digest: what a consumer counts belongs to it."""
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
