"""Bodies of requests, and their conversion to values of the model.

The docstrings of these classes are descriptions in the OpenAPI document.
"""

from __future__ import annotations

from functools import lru_cache
from sys import intern
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from adsum.core import model, validation
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import Invalid
from adsum.core.instance_texts import MAX_METADATA, MAX_TAGS
from adsum.core.model import Check, CheckKind, Instance, Registration
from adsum.wire import interning
from adsum.wire.codec import decode, encode
from adsum.wire.protocol import (
    HEADERS_SCHEMA,
    MAX_RENEWALS,
    MAX_WATCH_UPDATE,
    METADATA_SCHEMA,
    SCHEME_PATTERN,
    TAGS_SCHEMA,
    HolderClaim,
    Id,
    Name,
    Port,
    PositionText,
    Reason,
    StatusCode,
    Streak,
    Text,
    Wait,
)


class RequestBody(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a request. Unknown fields are refused."""


class CheckBody(RequestBody, frozen=True):
    """A check that the registry runs against the address of the instance.

    `interval` and `timeout` are in seconds. After `rise` successive passes the check passes; after `fall` successive
    failures it fails. `port` null: the port of the instance. `expect`: ranges of HTTP statuses that pass.
    """

    name: Id
    kind: CheckKind
    interval: Annotated[float, Meta(ge=model.MIN_INTERVAL, le=model.MAX_INTERVAL)] = 10.0
    timeout: Annotated[float, Meta(ge=0.01, le=model.MAX_TIMEOUT)] = 2.0
    rise: Streak = 2
    fall: Streak = 3
    port: Port | None = None
    path: Annotated[str, Meta(max_length=validation.MAX_VALUE_LENGTH, extra_json_schema={"pattern": "^/[!-~]*$"})] = "/"
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    headers: Annotated[dict[str, str], Meta(max_length=model.MAX_HEADERS, extra_json_schema=HEADERS_SCHEMA)] = {}
    expect: Annotated[list[tuple[StatusCode, StatusCode]], Meta(min_length=1, max_length=16)] = msgspec.field(
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
            headers=model.freeze(self.headers),
            expect=tuple(self.expect),
            grpc_service=self.grpc_service,
            tls=self.tls,
        )

    @staticmethod
    def from_check(check: Check) -> CheckBody:
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


class RegistrationBody(RequestBody, frozen=True):
    """An instance, and how it proves that it is alive. The path has its service and id.

    Without `address`, the address of the caller is listed. `ttl` and `grace` are in seconds; `ttl` null: no lease.
    `holder` names the process that holds the lease. `takeover` limits what the registration may take from other
    processes: `usual` the id of a process that is not live, and the instance's own address and port; `never` nothing of
    a live process; `force` anything.
    """

    port: Port
    address: Annotated[str, Meta(min_length=1, max_length=validation.MAX_ADDRESS_LENGTH)] | None = None
    scheme: Annotated[str, Meta(pattern=SCHEME_PATTERN)] = "http"
    zone: Text = ""
    weight: Annotated[int, Meta(ge=0, le=model.MAX_WEIGHT)] = 1
    tags: Annotated[tuple[str, ...], Meta(max_length=MAX_TAGS, extra_json_schema=TAGS_SCHEMA)] = ()
    metadata: Annotated[dict[str, str], Meta(max_length=MAX_METADATA, extra_json_schema=METADATA_SCHEMA)] = {}
    ttl: Annotated[float, Meta(ge=model.MIN_TTL, le=model.MAX_TTL)] | None = model.DEFAULT_TTL
    grace: Annotated[float, Meta(ge=0, le=model.MAX_GRACE)] = model.DEFAULT_GRACE
    checks: Annotated[list[CheckBody], Meta(max_length=model.MAX_CHECKS)] = []
    holder: Text = ""
    takeover: Takeover = Takeover.USUAL

    def to_registration(self, service: str, id: str, peer: str) -> Registration:
        """Returns the registration of an instance. `peer` is its address if the body has none. Raises `Invalid`."""
        instance = Instance(
            service=intern(service),
            id=id,
            address=interning.intern_address(self.address or peer),
            port=interning.intern_number(self.port),
            scheme=intern(self.scheme),
            zone=intern(self.zone),
            weight=self.weight,
            tags=interning.intern_texts(self.tags),
            metadata=interning.intern_pairs(self.metadata),
        )
        ttl = None if self.ttl is None else interning.intern_number(self.ttl)
        checks = _shared_checks(encode(self.checks)) if self.checks else ()
        return Registration(instance, ttl, interning.intern_number(self.grace), checks, self.holder)

    @staticmethod
    def from_registration(registration: Registration, takeover: Takeover = Takeover.USUAL) -> RegistrationBody:
        instance = registration.instance
        return RegistrationBody(
            port=instance.port,
            address=instance.address,
            scheme=instance.scheme,
            zone=instance.zone,
            weight=instance.weight,
            tags=instance.tags,
            metadata=dict(instance.metadata),
            ttl=registration.ttl,
            grace=registration.grace,
            checks=[CheckBody.from_check(check) for check in registration.checks],
            holder=registration.holder,
            takeover=takeover,
        )


def _shared_checks(text: bytes) -> tuple[Check, ...]:
    """Returns checks from their bodies in JSON. Short bodies are cached. Raises `Invalid`."""
    return _cached_checks(text) if len(text) <= interning.MAX_INTERNED_LENGTH else _checks(text)


@lru_cache(interning.MAX_INTERNED_VALUES)
def _cached_checks(text: bytes) -> tuple[Check, ...]:
    return _checks(text)


def _checks(text: bytes) -> tuple[Check, ...]:
    """Returns checks from their bodies in JSON. Raises `Invalid`."""
    checks = []
    for n, body in enumerate(decode(text, list[CheckBody])):
        try:
            checks.append(body.to_check())
        except Invalid as error:
            raise error.prefixed(f"checks[{n}]") from None
    return tuple(checks)


class LeaseBody(RequestBody, frozen=True):
    """A lease to renew. If `holder` is given, the lease must still have this holder."""

    service: Name
    id: Id
    holder: HolderClaim = ""


class RenewBody(RequestBody, frozen=True):
    """Leases to renew in one request."""

    leases: Annotated[list[LeaseBody], Meta(max_length=MAX_RENEWALS)]


class OverrideBody(RequestBody, frozen=True):
    """A status that outranks lease and checks, for `length` seconds, or until it is cleared.

    With `wait`, the response comes when every cooperating consumer has acknowledged the change, at most so many seconds
    later.
    """

    status: Literal["draining", "maintenance"]
    reason: Reason = ""
    length: Annotated[float, Meta(ge=1, le=model.MAX_OVERRIDE)] | None = None
    holder: HolderClaim = ""
    wait: Wait = 0.0


class AcknowledgementBody(RequestBody, frozen=True):
    """The revision that a cooperating consumer routes by from now on.

    `services`: only for these services of the watch; none: for all of them.
    """

    revision: Annotated[int, Meta(ge=0)]
    services: list[Name] = []


class JoiningService(RequestBody, frozen=True):
    """A service that joins a watch.

    `since`: EPOCH:REVISION up to which the caller has the service; without it the full state follows. `consumer`: the
    id of the consumer of this service, if it is not that of the watch.
    """

    service: Name
    since: PositionText | None = None
    consumer: Id | None = None


class WatchServicesBody(RequestBody, frozen=True):
    """Services that join a watch, and services that leave it. Those that leave do so first."""

    join: Annotated[list[JoiningService], Meta(max_length=MAX_WATCH_UPDATE)] = []
    leave: Annotated[list[Name], Meta(max_length=MAX_WATCH_UPDATE)] = []
