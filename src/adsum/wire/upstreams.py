"""The JSON of an upstream: how gateways treat a service."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from adsum.core.errors import Invalid
from adsum.gateway.intent import upstreams
from adsum.gateway.intent.upstreams import (
    LbPolicy,
    OutlierSettings,
    Upstream,
    UpstreamLimits,
    UpstreamProtocol,
    UpstreamTls,
)
from adsum.wire.durations import Duration, Fraction, convert_field, to_seconds
from adsum.wire.requests import RequestBody

Limit = Annotated[int, Meta(ge=1, le=upstreams.MAX_UPSTREAM_LIMIT)]

_UPSTREAM = Upstream("any")
_OUTLIERS, _LIMITS, _TLS = _UPSTREAM.outliers, _UPSTREAM.limits, _UPSTREAM.tls


class OutliersBody(RequestBody, frozen=True):
    """Outlier ejection: when failing instances are ejected, and for how long."""

    consecutive: Annotated[int, Meta(ge=0, le=upstreams.MAX_CONSECUTIVE_FAILURES)] = _OUTLIERS.consecutive
    interval: Duration = _OUTLIERS.interval
    base: Duration = _OUTLIERS.base
    max_share: Fraction = _OUTLIERS.max_share

    def to_outliers(self) -> OutlierSettings:
        interval, base = to_seconds("interval", self.interval), to_seconds("base", self.base)
        return OutlierSettings(self.consecutive, interval, base, self.max_share)

    @staticmethod
    def from_outliers(outliers: OutlierSettings) -> OutliersBody:
        return OutliersBody(outliers.consecutive, outliers.interval, outliers.base, outliers.max_share)


class LimitsBody(RequestBody, frozen=True):
    """The circuit breakers of each gateway, and its budget of retries."""

    connections: Limit = _LIMITS.connections
    pending: Limit = _LIMITS.pending
    requests: Limit = _LIMITS.requests
    retries: Annotated[int, Meta(ge=0, le=upstreams.MAX_UPSTREAM_LIMIT)] = _LIMITS.retries
    retry_share: Fraction = _LIMITS.retry_share

    def to_limits(self) -> UpstreamLimits:
        return UpstreamLimits(self.connections, self.pending, self.requests, self.retries, self.retry_share)

    @staticmethod
    def from_limits(limits: UpstreamLimits) -> LimitsBody:
        return LimitsBody(limits.connections, limits.pending, limits.requests, limits.retries, limits.retry_share)


class TlsBody(RequestBody, frozen=True):
    """The verification of the certificates of https instances by gateways."""

    verify: bool = True
    ca: str = ""
    name: str = ""

    def to_tls(self) -> UpstreamTls:
        return UpstreamTls(self.verify, self.ca, self.name.lower())

    @staticmethod
    def from_tls(tls: UpstreamTls) -> TlsBody:
        return TlsBody(tls.verify, tls.ca, tls.name)


class UpstreamBody(RequestBody, frozen=True):
    """An upstream: how gateways treat a service. Durations are seconds, or texts such as 2s and 1m30s."""

    service: str = ""
    policy: LbPolicy = _UPSTREAM.policy
    protocol: UpstreamProtocol = _UPSTREAM.protocol
    panic_threshold: Fraction = _UPSTREAM.panic_threshold
    slow_start: Duration = _UPSTREAM.slow_start
    connect_timeout: Duration = _UPSTREAM.connect_timeout
    keep_alive: Duration = _UPSTREAM.keep_alive
    hash_size: Annotated[int, Meta(ge=upstreams.MIN_HASH_SIZE, le=upstreams.MAX_HASH_SIZE)] = _UPSTREAM.hash_size
    outliers: OutliersBody | None = None
    limits: LimitsBody | None = None
    tls: TlsBody | None = None

    def to_upstream(self, service: str = "") -> Upstream:
        """Returns the upstream, for this service or its own. Raises `Invalid` with the field as it was sent."""
        if self.service and service and self.service != service:
            raise Invalid("service", f"must be {service}, the service in the path")
        return Upstream(
            service=service or self.service,
            policy=self.policy,
            protocol=self.protocol,
            panic_threshold=self.panic_threshold,
            slow_start=to_seconds("slow_start", self.slow_start),
            connect_timeout=to_seconds("connect_timeout", self.connect_timeout),
            keep_alive=to_seconds("keep_alive", self.keep_alive),
            hash_size=self.hash_size,
            outliers=convert_field("outliers", self.outliers.to_outliers) if self.outliers else _OUTLIERS,
            limits=convert_field("limits", self.limits.to_limits) if self.limits else _LIMITS,
            tls=convert_field("tls", self.tls.to_tls) if self.tls else _TLS,
        )

    @staticmethod
    def from_upstream(upstream: Upstream) -> UpstreamBody:
        return UpstreamBody(
            service=upstream.service,
            policy=upstream.policy,
            protocol=upstream.protocol,
            panic_threshold=upstream.panic_threshold,
            slow_start=upstream.slow_start,
            connect_timeout=upstream.connect_timeout,
            keep_alive=upstream.keep_alive,
            hash_size=upstream.hash_size,
            outliers=OutliersBody.from_outliers(upstream.outliers) if upstream.outliers != _OUTLIERS else None,
            limits=LimitsBody.from_limits(upstream.limits) if upstream.limits != _LIMITS else None,
            tls=TlsBody.from_tls(upstream.tls) if upstream.tls != _TLS else None,
        )
