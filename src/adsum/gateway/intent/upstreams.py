"""Upstreams: how gateways treat the instances of a service. Every default is explicit and chosen from measurements."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.gateway.patterns import host_patterns

MAX_UPSTREAM_LIMIT: Final = 1_000_000
MAX_CONSECUTIVE_FAILURES: Final = 1_000
MAX_SLOW_START: Final = 3_600.0
MIN_HASH_SIZE, MAX_HASH_SIZE = 1_024, 1_048_576
MIN_CONNECT_TIMEOUT, MAX_CONNECT_TIMEOUT = 0.01, 60.0
MIN_KEEP_ALIVE, MAX_KEEP_ALIVE = 0.1, 86_400.0
MIN_OUTLIER_INTERVAL, MAX_OUTLIER_INTERVAL = 0.1, 3_600.0

_PATH: Final = re.compile(r"/[!-~ ]{1,1023}")


def _share(field: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise Invalid(field, "must be a share from 0 to 1")


class LbPolicy(StrEnum):
    """The load balancing policies: how a gateway chooses an instance (Envoy, "Supported load balancers")."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"
    RANDOM = "random"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


HASH_POLICIES: Final = frozenset({LbPolicy.RING_HASH, LbPolicy.MAGLEV})
"""Policies that send requests with the same hash to the same instance."""


class UpstreamProtocol(StrEnum):
    """The version of HTTP that a gateway uses to a service's instances.

    `auto` follows the scheme of each instance: HTTP/2 for grpc, grpcs, h2 and h2c, else HTTP/1.1.
    """

    AUTO = "auto"
    HTTP1 = "http1"
    HTTP2 = "http2"


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """Outlier detection: a gateway ejects instances that fail, for a while.

    An instance is ejected after `consecutive` failures in a row (502, 503 and 504; separately, connections that fail or
    break), for `base` seconds times the number of its ejections so far. Every `interval` seconds the gateway ends
    ejections that are over. At most `max_share` of the instances are ejected at once, so that a single instance never
    is. `consecutive` 0 turns ejection off.

    A response of 500 is not a failure here: the instance is reachable, and its program has a bug.
    """

    consecutive: int = 5
    interval: float = 1.0
    base: float = 5.0
    max_share: float = 0.5

    def __post_init__(self) -> None:
        validation.whole_number("consecutive", self.consecutive, 0, MAX_CONSECUTIVE_FAILURES)
        validation.seconds("interval", self.interval, MIN_OUTLIER_INTERVAL, MAX_OUTLIER_INTERVAL)
        validation.seconds("base", self.base, MIN_OUTLIER_INTERVAL, MAX_OUTLIER_INTERVAL)
        _share("max_share", self.max_share)


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Circuit breakers of a service at each gateway: past them, the gateway answers requests with 503 at once.

    They protect the gateway's memory. Envoy's defaults (1,024, and 3 retries) fail requests at an ordinary load peak.

    The retry budget is `retries` at once, or `retry_share` of the running and waiting requests, whichever is more. When
    an instance is killed, all its requests are retried at once: in measurements with up to 60 callers at 3 instances,
    no request failed with 25 retries, and some failed with 20. With 25, a failing service got 1.5 times the load of 60
    callers, and with more callers a smaller factor. With fewer than about 30 callers, every failure is retried.
    """

    connections: int = 10_000
    pending: int = 10_000
    requests: int = 100_000
    retries: int = 25
    retry_share: float = 0.2

    def __post_init__(self) -> None:
        validation.whole_number("connections", self.connections, 1, MAX_UPSTREAM_LIMIT)
        validation.whole_number("pending", self.pending, 1, MAX_UPSTREAM_LIMIT)
        validation.whole_number("requests", self.requests, 1, MAX_UPSTREAM_LIMIT)
        validation.whole_number("retries", self.retries, 0, MAX_UPSTREAM_LIMIT)
        _share("retry_share", self.retry_share)


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """The verification of the certificates of instances with TLS.

    `ca` is a file at the gateway with certificate authorities; "": those that the gateway's system trusts. `name` is
    sent as SNI and must be in the certificate; "": the instance's own address, a host name or an IP. An IP is not sent
    as SNI.
    """

    verify: bool = True
    ca: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.ca and not _PATH.fullmatch(self.ca):
            raise Invalid("ca", "must be the absolute path of a file")
        if self.name:
            host_patterns.check_host_pattern("name", self.name)
            if self.name.startswith(("*", "[")):
                raise Invalid("name", "must be one host name")


@dataclass(frozen=True, slots=True)
class Upstream:
    """The settings with which gateways treat a service. Times are seconds.

    `panic_threshold`: below this share of usable instances, the gateway ignores health and uses all instances. With
    0.0, the default, it answers 503 instead: the registry's evidence is sound, and a panic would send requests to
    draining instances.
    `keep_alive`: the time after which idle connections to instances are closed. It is shorter than that of the usual
    servers (uvicorn, Node and Apache: 5 s), which would close them under a request that can't be retried.
    `slow_start`: the time in which a new instance reaches its full share.
    `hash_size`: the entries of the hash ring or table.
    The services of a route with `hash` use a policy that hashes, whatever `policy` is (`ring_hash`, unless it is
    `maglev`).
    """

    service: str
    policy: LbPolicy = LbPolicy.LEAST_REQUEST
    protocol: UpstreamProtocol = UpstreamProtocol.AUTO
    panic_threshold: float = 0.0
    slow_start: float = 0.0
    connect_timeout: float = 1.0
    outliers: OutlierSettings = OutlierSettings()
    limits: UpstreamLimits = UpstreamLimits()
    tls: UpstreamTls = UpstreamTls()
    hash_size: int = MIN_HASH_SIZE
    keep_alive: float = 4.0

    def __post_init__(self) -> None:
        validation.service_name("service", self.service)
        _share("panic_threshold", self.panic_threshold)
        validation.seconds("slow_start", self.slow_start, 0.0, MAX_SLOW_START)
        if self.slow_start and self.policy not in (LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST):
            raise Invalid("slow_start", "needs the policy round_robin or least_request")
        validation.seconds("connect_timeout", self.connect_timeout, MIN_CONNECT_TIMEOUT, MAX_CONNECT_TIMEOUT)
        validation.seconds("keep_alive", self.keep_alive, MIN_KEEP_ALIVE, MAX_KEEP_ALIVE)
        validation.whole_number("hash_size", self.hash_size, MIN_HASH_SIZE, MAX_HASH_SIZE)
