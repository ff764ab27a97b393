"""The JSON of an upstream: how gateways treat a service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from adsum.core.errors import Invalid
from adsum.gateway.intent import upstreams
from adsum.gateway.intent.upstreams import Limits, Outliers, Policy, Protocol, Tls, Upstream
from adsum.wire.durations import Length, Share, seconds, within
from adsum.wire.requests import Request

Limit = Annotated[int, Meta(ge=1, le=upstreams.MAX_LIMIT)]

_UPSTREAM = Upstream("any")
_OUTLIERS, _LIMITS, _TLS = _UPSTREAM.outliers, _UPSTREAM.limits, _UPSTREAM.tls


class OutliersBody(Request, frozen=True):
    """When instances that fail are left out, and for how long."""

    consecutive: Annotated[int, Meta(ge=0, le=upstreams.MAX_CONSECUTIVE)] = _OUTLIERS.consecutive
    interval: Length = _OUTLIERS.interval
    base: Length = _OUTLIERS.base
    max_share: Share = _OUTLIERS.max_share

    def to_outliers(self) -> Outliers:
        interval, base = seconds("interval", self.interval), seconds("base", self.base)
        return Outliers(self.consecutive, interval, base, self.max_share)

    @staticmethod
    def of(outliers: Outliers) -> OutliersBody:
        return OutliersBody(outliers.consecutive, outliers.interval, outliers.base, outliers.max_share)


class LimitsBody(Request, frozen=True):
    """Circuit breakers of each gateway, and the budget of retries."""

    connections: Limit = _LIMITS.connections
    pending: Limit = _LIMITS.pending
    requests: Limit = _LIMITS.requests
    retries: Annotated[int, Meta(ge=0, le=upstreams.MAX_LIMIT)] = _LIMITS.retries
    retry_share: Share = _LIMITS.retry_share

    def to_limits(self) -> Limits:
        return Limits(self.connections, self.pending, self.requests, self.retries, self.retry_share)

    @staticmethod
    def of(limits: Limits) -> LimitsBody:
        return LimitsBody(limits.connections, limits.pending, limits.requests, limits.retries, limits.retry_share)


class TlsBody(Request, frozen=True):
    """How the certificates of https instances are verified."""

    verify: bool = True
    ca: str = ""
    name: str = ""

    def to_tls(self) -> Tls:
        return Tls(self.verify, self.ca, self.name.lower())

    @staticmethod
    def of(tls: Tls) -> TlsBody:
        return TlsBody(tls.verify, tls.ca, tls.name)


class UpstreamBody(Request, frozen=True):
    """How gateways treat a service. Lengths of time are seconds, or texts such as 2s and 1m30s."""

    service: str = ""
    policy: Policy = _UPSTREAM.policy
    protocol: Protocol = _UPSTREAM.protocol
    panic_threshold: Share = _UPSTREAM.panic_threshold
    slow_start: Length = _UPSTREAM.slow_start
    connect_timeout: Length = _UPSTREAM.connect_timeout
    keep_alive: Length = _UPSTREAM.keep_alive
    hash_size: Annotated[int, Meta(ge=upstreams.MIN_HASH_SIZE, le=upstreams.MAX_HASH_SIZE)] = _UPSTREAM.hash_size
    outliers: OutliersBody | None = None
    limits: LimitsBody | None = None
    tls: TlsBody | None = None

    def to_upstream(self, service: str = "") -> Upstream:
        """The settings of that service, or of its own. Raises `Invalid`, naming the field as it was sent."""
        if self.service and service and self.service != service:
            raise Invalid("service", f"must be {service}, as it was asked for")
        return Upstream(
            service=service or self.service,
            policy=self.policy,
            protocol=self.protocol,
            panic_threshold=self.panic_threshold,
            slow_start=seconds("slow_start", self.slow_start),
            connect_timeout=seconds("connect_timeout", self.connect_timeout),
            keep_alive=seconds("keep_alive", self.keep_alive),
            hash_size=self.hash_size,
            outliers=within("outliers", self.outliers.to_outliers) if self.outliers else _OUTLIERS,
            limits=within("limits", self.limits.to_limits) if self.limits else _LIMITS,
            tls=within("tls", self.tls.to_tls) if self.tls else _TLS,
        )

    @staticmethod
    def of(upstream: Upstream) -> UpstreamBody:
        return UpstreamBody(
            service=upstream.service,
            policy=upstream.policy,
            protocol=upstream.protocol,
            panic_threshold=upstream.panic_threshold,
            slow_start=upstream.slow_start,
            connect_timeout=upstream.connect_timeout,
            keep_alive=upstream.keep_alive,
            hash_size=upstream.hash_size,
            outliers=OutliersBody.of(upstream.outliers) if upstream.outliers != _OUTLIERS else None,
            limits=LimitsBody.of(upstream.limits) if upstream.limits != _LIMITS else None,
            tls=TlsBody.of(upstream.tls) if upstream.tls != _TLS else None,
        )
