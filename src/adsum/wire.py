"""The native JSON, shared by both ends: what travels, and how it becomes the model's values and back.

Bodies are decoded and validated in one step (`decode`): types, bounds and unknown fields by the structs, invariants by
the model's constructors. Answers leave out fields that have their default value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from adsum.core import model, rules
from adsum.core.catalog import Diff, ServiceSnapshot
from adsum.core.changes import Change, Recorded
from adsum.core.errors import Invalid
from adsum.core.model import Check, CheckKind, Endpoint, Instance, Listing, Outcome, Override, Registration, Status

MAX_RENEWALS: Final = 10_000
"""How many leases one request renews; more are refused."""
MAX_WAIT: Final = 300.0
"""How many seconds a long poll or an acknowledged drain waits at most; longer ones are refused."""
MAX_HISTORY: Final = 1_000
"""How many recorded changes one answer holds at most."""

EPOCH_HEADER: Final = "Adsum-Epoch"
REVISION_HEADER: Final = "Adsum-Revision"
AGE_HEADER: Final = "Adsum-Age"
ACTOR_HEADER: Final = "Adsum-Actor"
"""Who asks, for the record; without it the caller's address is recorded."""

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="One DNS label")]
Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]

# What only the model checks, told in the schema too, so that callers can know it before they ask.
_LINE: Final = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}
_TAGS: Final = {
    "uniqueItems": True,
    "items": {"type": "string", "minLength": 1, "maxLength": rules.TEXT_LENGTH, **_LINE},
}
_PAIRS: Final = {
    "propertyNames": {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"},
    "additionalProperties": {"type": "string", "maxLength": rules.VALUE_LENGTH, **_LINE},
}
_HEADERS: Final = {
    "propertyNames": {
        "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$",
        "not": {"pattern": "^([Cc]ontent-[Ll]ength|[Tt]ransfer-[Ee]ncoding|[Cc]onnection|[Uu]pgrade)$"},
    },
    "additionalProperties": {"type": "string", "maxLength": rules.VALUE_LENGTH, "pattern": "^[ -~]*$"},
}

Text = Annotated[str, Meta(max_length=rules.TEXT_LENGTH, extra_json_schema=_LINE)]
Reason = Annotated[str, Meta(max_length=rules.VALUE_LENGTH, extra_json_schema=_LINE)]
Claim = Annotated[str, Meta(max_length=rules.TEXT_LENGTH, description="Must be the holder's name, if given")]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Code = Annotated[int, Meta(ge=100, le=599)]
Streak = Annotated[int, Meta(ge=1, le=model.MAX_STREAK)]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT)]


class Request(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller sends."""


class Answer(Struct, frozen=True, omit_defaults=True):
    """What the registry answers. Readers ignore fields that they don't know."""


class CheckBody(Request, frozen=True):
    """A check to run against the instance's own address."""

    name: Id
    kind: CheckKind
    interval: Annotated[float, Meta(ge=model.MIN_INTERVAL, le=model.MAX_INTERVAL)] = 10.0
    timeout: Annotated[float, Meta(ge=0.01, le=model.MAX_TIMEOUT)] = 2.0
    rise: Streak = 2
    fall: Streak = 3
    port: Port | None = None
    path: Annotated[str, Meta(max_length=rules.VALUE_LENGTH, extra_json_schema={"pattern": "^/[!-~]*$"})] = "/"
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    headers: Annotated[dict[str, str], Meta(max_length=model.MAX_HEADERS, extra_json_schema=_HEADERS)] = {}
    expect: Annotated[list[tuple[Code, Code]], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: [(200, 299)]
    )
    grpc_service: Text = ""
    tls: bool = False

    def to_check(self) -> Check:
        return Check(
            name=self.name,
            kind=self.kind,
            interval=self.interval,
            timeout=self.timeout,
            rise=self.rise,
            fall=self.fall,
            port=self.port,
            path=self.path,
            method=self.method,
            headers=model.frozen(self.headers),
            expect=tuple(self.expect),
            grpc_service=self.grpc_service,
            tls=self.tls,
        )

    @staticmethod
    def of(check: Check) -> CheckBody:
        return CheckBody(
            name=check.name,
            kind=check.kind,
            interval=check.interval,
            timeout=check.timeout,
            rise=check.rise,
            fall=check.fall,
            port=check.port,
            path=check.path,
            method=check.method,  # type: ignore[arg-type]  # the model has checked it
            headers=dict(check.headers),
            expect=list(check.expect),
            grpc_service=check.grpc_service,
            tls=check.tls,
        )


class RegistrationBody(Request, frozen=True):
    """An instance and how it proves that it is alive; its service and id stand in the path.

    Without `address`, the address that the request came from is listed. `ttl` null: no lease.
    """

    port: Port
    address: Annotated[str, Meta(min_length=1, max_length=rules.ADDRESS_LENGTH)] | None = None
    scheme: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+.-]{0,15}$")] = "http"
    zone: Text = ""
    weight: Annotated[int, Meta(ge=0, le=model.MAX_WEIGHT)] = 1
    tags: Annotated[list[str], Meta(max_length=model.MAX_TAGS, extra_json_schema=_TAGS)] = []
    metadata: Annotated[dict[str, str], Meta(max_length=model.MAX_METADATA, extra_json_schema=_PAIRS)] = {}
    ttl: Annotated[float, Meta(ge=model.MIN_TTL, le=model.MAX_TTL)] | None = model.DEFAULT_TTL
    grace: Annotated[float, Meta(ge=0, le=model.MAX_GRACE)] = model.DEFAULT_GRACE
    checks: Annotated[list[CheckBody], Meta(max_length=model.MAX_CHECKS)] = []
    holder: Text = ""

    def to_registration(self, service: str, id: str, peer: str) -> Registration:
        """The registration of that instance; `peer` is listed if no address was given. Raises `Invalid`."""
        checks = []
        for n, body in enumerate(self.checks):
            try:
                checks.append(body.to_check())
            except Invalid as error:
                raise error.under(f"checks[{n}]") from None
        instance = Instance(
            service=service,
            id=id,
            address=self.address or peer,
            port=self.port,
            scheme=self.scheme,
            zone=self.zone,
            weight=self.weight,
            tags=tuple(self.tags),
            metadata=model.frozen(self.metadata),
        )
        return Registration(instance, self.ttl, self.grace, tuple(checks), self.holder)

    @staticmethod
    def of(registration: Registration) -> RegistrationBody:
        instance = registration.instance
        return RegistrationBody(
            port=instance.port,
            address=instance.address,
            scheme=instance.scheme,
            zone=instance.zone,
            weight=instance.weight,
            tags=list(instance.tags),
            metadata=dict(instance.metadata),
            ttl=registration.ttl,
            grace=registration.grace,
            checks=[CheckBody.of(check) for check in registration.checks],
            holder=registration.holder,
        )


class LeaseBody(Request, frozen=True):
    """A lease to renew. `holder`, if given, must still be the lease's."""

    service: Name
    id: Id
    holder: Claim = ""


class RenewBody(Request, frozen=True):
    """Leases to renew, all in one request."""

    leases: Annotated[list[LeaseBody], Meta(max_length=MAX_RENEWALS)]


class OverrideBody(Request, frozen=True):
    """A status that outranks evidence. `length` seconds, or until it is cleared.

    With `wait`, the answer comes when every cooperating consumer routes by it, at most so many seconds later.
    """

    status: Literal["draining", "maintenance"]
    reason: Reason = ""
    length: Annotated[float, Meta(ge=1, le=model.MAX_OVERRIDE)] | None = None
    holder: Claim = ""
    wait: Wait = 0.0


class AppliedBody(Request, frozen=True):
    """The revision that a cooperating consumer routes by from now on."""

    revision: Annotated[int, Meta(ge=0)]


class Written(Answer, frozen=True):
    """A write is durable and visible from `revision` on. `ttl`: renew before so many seconds have passed."""

    epoch: str
    revision: int
    ttl: float | None = None
    unaware: int = 0
    """How many cooperating consumers had not said in time that they route by it."""


class Lost(Answer, frozen=True):
    """A lease that could not be renewed: register again."""

    service: str
    id: str
    reason: Literal["unknown", "superseded"]


class Renewed(Answer, frozen=True):
    """How many leases were renewed, and those that were not."""

    epoch: str
    revision: int
    renewed: int
    lost: list[Lost] = []


class InstanceView(Answer, frozen=True):
    """An instance as consumers see it, and why it stands as it does."""

    id: str
    address: str
    port: int
    status: Status
    scheme: str = "http"
    zone: str = ""
    weight: int = 1
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    since: float = 0.0
    cause: str = ""
    actor: str = ""
    reason: str = ""

    @staticmethod
    def of(listing: Listing) -> InstanceView:
        instance, why = listing.instance, listing.why
        return InstanceView(
            id=instance.id,
            address=instance.address,
            port=instance.port,
            status=listing.status,
            scheme=instance.scheme,
            zone=instance.zone,
            weight=instance.weight,
            tags=instance.tags,
            metadata=dict(instance.metadata),
            since=round(listing.since, 3),
            cause=why.cause,
            actor=why.actor,
            reason=why.reason,
        )

    def to_endpoint(self, service: str) -> Endpoint:
        """The endpoint for a consumer. Raises `Invalid` if the other end speaks nonsense."""
        instance = Instance(
            service=service,
            id=self.id,
            address=self.address,
            port=self.port,
            scheme=self.scheme,
            zone=self.zone,
            weight=self.weight,
            tags=self.tags,
            metadata=model.frozen(self.metadata),
        )
        return Endpoint(instance, self.status)


class ServiceView(Answer, frozen=True):
    """A service at the revision of its last change."""

    epoch: str
    service: str
    revision: int
    instances: list[InstanceView]

    @staticmethod
    def of(epoch: str, service: ServiceSnapshot) -> ServiceView:
        views = [InstanceView.of(listing) for listing in service.listings.values()]
        return ServiceView(epoch, service.name, service.revision, views)


class Gone(Answer, frozen=True):
    """An instance that left, and why."""

    id: str
    cause: str
    actor: str
    reason: str = ""
    at: float = 0.0

    @staticmethod
    def of(change: Change) -> Gone:
        why = change.why
        return Gone(change.key.id, why.cause, why.actor, why.reason, round(why.at, 3))


class ServiceChange(Answer, frozen=True):
    """What turns a service as it was at `since` into what it is at `revision`."""

    service: str
    since: int
    revision: int
    changed: list[InstanceView] = []
    gone: list[Gone] = []

    @staticmethod
    def of(diff: Diff) -> ServiceChange:
        return ServiceChange(
            diff.service,
            diff.since,
            diff.revision,
            [InstanceView.of(listing) for listing in diff.changed],
            [Gone.of(change) for change in diff.gone],
        )


class Opened(Answer, frozen=True):
    """The first event of a watch.

    `whole`: forget everything, the full state follows; otherwise only what changed since the revision asked for.
    `watch` is the token under which a cooperating consumer says what it has applied.
    """

    epoch: str
    revision: int
    whole: bool
    watch: str
    age: float = 0.0


class Synced(Answer, frozen=True):
    """All that is to be said up to `revision` has been said; also the heartbeat of a quiet watch."""

    revision: int
    age: float = 0.0


class CheckView(Answer, frozen=True):
    """A check and how it stands; the last outcome's text is for people and wakes no watcher."""

    check: CheckBody
    status: Status
    result: str = ""
    note: str = ""
    took: float = 0.0


class OverrideView(Answer, frozen=True):
    """A declared status, by whom and why."""

    status: Status
    author: str
    reason: str = ""
    length: float | None = None
    at: float = 0.0

    @staticmethod
    def of(override: Override) -> OverrideView:
        return OverrideView(override.status, override.author, override.reason, override.length, override.at)


class InstanceDetail(Answer, frozen=True):
    """Everything known of one instance."""

    epoch: str
    revision: int
    service: str
    instance: InstanceView
    evidence: Status
    lease: str
    grace: float
    ttl: float | None = None
    override: OverrideView | None = None
    checks: list[CheckView] = []

    @staticmethod
    def of(epoch: str, revision: int, listing: Listing, outcomes: Mapping[str, Outcome]) -> InstanceDetail:
        registration = listing.registration
        checks = []
        for check in registration.checks:
            outcome = outcomes.get(check.name)
            view = CheckView(CheckBody.of(check), listing.checks[check.name])
            if outcome is not None:
                view = CheckView(view.check, view.status, outcome.result, outcome.note, round(outcome.took, 6))
            checks.append(view)
        return InstanceDetail(
            epoch=epoch,
            revision=revision,
            service=listing.key.service,
            instance=InstanceView.of(listing),
            evidence=listing.evidence,
            lease=listing.lease if registration.ttl is not None else "none",
            grace=registration.grace,
            ttl=registration.ttl,
            override=OverrideView.of(listing.override) if listing.override else None,
            checks=checks,
        )


class ServiceSummary(Answer, frozen=True):
    """A service in the list of all: how many instances stand how."""

    name: str
    revision: int
    instances: int
    status: dict[str, int] = {}


class ServiceList(Answer, frozen=True):
    """Every known service, by name."""

    epoch: str
    revision: int
    services: list[ServiceSummary]


class ChangeView(Answer, frozen=True):
    """A recorded change. `status` is what it led to; "" if the instance left."""

    revision: int
    service: str
    id: str
    cause: str
    actor: str
    at: float
    status: str = ""
    reason: str = ""

    @staticmethod
    def of(recorded: Recorded) -> ChangeView:
        key, why = recorded.key, recorded.why
        return ChangeView(
            recorded.revision, key.service, key.id, why.cause, why.actor, round(why.at, 3), recorded.status, why.reason
        )


class ChangeList(Answer, frozen=True):
    """Recorded changes, newest first."""

    epoch: str
    revision: int
    changes: list[ChangeView]


class NodeStatus(Answer, frozen=True):
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
    services: int = 0
    instances: int = 0
    status: dict[str, int] = {}
    """How many instances stand how."""
    watches: int = 0
    leases: int = 0
    lapsed: int = 0
    checks: int = 0
    check_lag: float = 0.0
    """How late the latest check was started."""
    checks_overdue: int = 0
    guards: dict[str, int] = {}
    """Services whose guard holds back expiries, and how many."""


class Problem(Answer, frozen=True):
    """A problem document (RFC 9457). `field` is the dotted path of the value that is wrong, where there is one."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str = ""


T = TypeVar("T")

MAX_TOLD: Final = 200
"""How many characters of a problem, or of the path to it, an error tells: what was sent may stand in it."""

_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_MENTIONED = re.compile(r"(?:unknown|required) field `(?P<name>[^`]*)`")


def encode(value: object) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def decode(body: bytes | str, kind: type[T]) -> T:
    """Decode and validate in one step. Raises `Invalid`; its field is "" when the body as a whole is no JSON."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Invalid("", f"the body must be JSON: {error}") from None
    except RecursionError:
        raise Invalid("", "the body must be JSON of less depth") from None


def _invalid(message: str) -> Invalid:
    """The library's words, with the path as a field: "Expected `int` <= 65535 - at `$.port`"."""
    at = _AT.search(message)
    problem, path = (message[: at.start()], at["path"]) if at else (message, "")
    mentioned = _MENTIONED.search(problem)
    if mentioned:
        path = f"{path}.{mentioned['name']}" if path else mentioned["name"]
    return Invalid(_told(path), _told(problem[:1].lower() + problem[1:]))


def _told(text: str) -> str:
    return text if len(text) <= MAX_TOLD else text[:MAX_TOLD] + "…"
