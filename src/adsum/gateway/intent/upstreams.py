"""Upstreams: how gateways treat the instances of a service. Every default is explicit, chosen from measurements."""

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
    """How one of several instances is chosen (Envoy, "Supported load balancers")."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUEST = "least_request"
    RANDOM = "random"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


HASH_POLICIES: Final = frozenset({LbPolicy.RING_HASH, LbPolicy.MAGLEV})
"""Policies that send what is alike to the same instance."""


class UpstreamProtocol(StrEnum):
    """What instances are spoken to. `auto` goes by the scheme of each: HTTP/2 if it is grpc, grpcs, h2 or h2c."""

    AUTO = "auto"
    HTTP1 = "http1"
    HTTP2 = "http2"


@dataclass(frozen=True, slots=True)
class OutlierSettings:
    """Instances that fail are left out for a while.

    After `consecutive` failures in a row (502, 503 and 504, and separately connections that fail or break), for `base`
    seconds times the number of times so far. At most `max_share` of the instances are out at once, so that one alone
    never is. `consecutive` 0: nobody is left out.

    An answer of 500 is no failure here: it says that the instance is there and that its program has a bug.
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
    """Circuit breakers of each gateway: past them, requests are answered 503 at once.

    They guard the gateway's own memory; Envoy's defaults (1,024, and 3 retries) fail requests in an ordinary rush.

    The retry budget: so many `retries` at once, or `retry_share` of the requests that run and wait, whichever is more.
    When an instance is killed, all its requests are tried again at once: 25 is what failed none of them in trials with
    up to 60 callers at 3 instances (20 failed some). A service that fails got 1.5 times the load of 60 callers by it,
    and less from more of them; from less than about 30 it gets every retry.
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
    """How the certificates of https instances are verified.

    `ca` is a file at the gateway; "": what the gateway's system trusts. `name` is the name that is asked for and that
    must stand in the certificate; "": the instance's own address, a host name or an IP. No name is asked for then if
    it is an IP.
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
    """How gateways treat a service. Lengths are seconds.

    `panic_threshold`: below this share of usable instances, health is distrusted and all are used. 0.0, the default,
    answers 503 instead: the registry's evidence is sound, and a panic would send requests to what is draining.
    `keep_alive`: idle connections to instances are closed after so long, before the usual servers (uvicorn, Node and
    Apache: 5 s) close them under a request that could not be retried.
    `slow_start`: an instance that comes gets its full share after so long. `hash_size`: entries of a ring or table.
    A route that hashes makes its services hash, whatever `policy` says (`ring_hash`, unless that is `maglev`).
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
