"""Settings, read once at the edge: one frozen object a table of the file, checked when it is made.

A field is all there is to a setting: its name is the key in the file, `ADSUM_NAME` in the environment and `--name` on
the command line; its type says how texts are read; its metadata is what `--help` tells. Constructors raise `Invalid`
naming the field.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from adsum.client.actor import default_actor
from adsum.client.views.view import CACHE_MAX_AGE_LIMIT, DEFAULT_CACHE_MAX_AGE
from adsum.core import validation
from adsum.core.address_policy import LOOPBACK_NETWORKS, AddressPolicy, Network
from adsum.core.catalog.draft import MAX_CATALOG_BYTES
from adsum.core.errors import Invalid
from adsum.core.liveness.empty_services import DEFAULT_FORGET_AFTER
from adsum.core.liveness.heartbeats import (
    DEFAULT_DRAIN_WAIT,
    DEFAULT_HEARTBEAT,
    MAX_HEARTBEAT,
    MIN_HEARTBEAT,
    stale_after,
)
from adsum.core.model import DEFAULT_GRACE, DEFAULT_TTL, EMPTY_MAPPING
from adsum.core.sizes import format_size
from adsum.core.validation import MAX_PORT, address, quoted, without_credentials
from adsum.etcd import naming
from adsum.etcd.address import DEFAULT_STORE_PREFIX, SCHEME, EtcdAddress
from adsum.gateway.profile import GatewayProfile, split_address
from adsum.peers import advertised_url

DEFAULT_LISTEN: Final = "127.0.0.1:23786"
"""A-D-S-U-M on a phone's keys."""
DEFAULT_URL: Final = f"http://{DEFAULT_LISTEN}"
DEFAULT_XDS_PORT: Final = 23787
"""Where a registry node talks to gateways and gRPC clients."""
DEFAULT_XDS_LISTEN: Final = f"127.0.0.1:{DEFAULT_XDS_PORT}"
DEFAULT_GATEWAY_LISTEN: Final = "127.0.0.1:8080"
"""Where a gateway takes requests."""
DEFAULT_MONITOR_LISTEN: Final = "127.0.0.1:23788"
"""Where a gateway tells its metrics."""
OFF: Final = "off"
ON: Final = "on"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
MAX_CONNECTIONS_SETTING: Final = 1_000_000
"""More is surely a slip of the finger."""
MIN_CATALOG_BYTES: Final = 1024 * 1024
"""Bytes; less has no room for some ten registrations of the largest."""
MAX_CONCURRENCY: Final = 1_024
"""More threads than processors that there are."""
MAX_PROBES_SETTING: Final = 65_536
"""More probes at a time than ports to send them from are of no use."""
MAX_TIMEOUT_SETTING: Final = 86_400.0
"""Seconds; the longest that any of our waits may be set to."""

_PLACE: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(?P<port>\d{1,5})")


def setting(
    text: str,
    *,
    length: bool = False,
    size: bool = False,
    metavar: str = "",
    bare: str = "",
    prefix: str = "",
    reloads: bool = False,
    **options: Any,
) -> Any:
    """A field with its help.

    `length`: seconds, which may be written as 200ms, 5s, 1m30s or 2h. `size`: bytes, which may be written as 512MiB or
    2GiB. `bare`: what the flag means without a value.
    `prefix`: what the environment has before the name, where another table has a setting of that name. `reloads`: a
    registry takes a new value on SIGHUP, without a restart.
    """
    described = {"help": text, "length": length, "size": size, "metavar": metavar, "bare": bare, "prefix": prefix}
    return field(metadata={**described, "reloads": reloads}, **options)


def default_store() -> str:
    """The SQLite file in the XDG data folder. Raises `Invalid` for a user who has none."""
    try:
        home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    except RuntimeError:  # A container may run as a number that has no home.
        raise Invalid(
            "store", "must be given, since this user has no home: --store sqlite:////PATH, or set XDG_DATA_HOME"
        ) from None
    return f"sqlite:///{Path(home) / 'adsum' / 'adsum.db'}"


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How the registry is reached, and as whom."""

    url: str = setting(
        "Where the registry is; several nodes of one are separated by commas. To run, register and resolve without "
        "one: etcd://HOST:PORT,… or consul://HOST:PORT",
        default=DEFAULT_URL,
    )
    zone: str = setting("The zone we are in", default="")
    actor: str = setting("Who we are, for the record of changes; user@host unless set", default_factory=default_actor)
    cache_max_age: float = setting(
        "How old the view kept on this host may be; one that is older is used, while no registry answers, with a word "
        "in each error",
        length=True,
        default=DEFAULT_CACHE_MAX_AGE,
    )

    def __post_init__(self) -> None:
        check_range("cache_max_age", self.cache_max_age, 0.0, CACHE_MAX_AGE_LIMIT)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `adsum serve` is told. Lengths of time are seconds."""

    listen: str = setting(
        "Address and port to listen on; port 0 picks a free one", metavar="HOST:PORT", default=DEFAULT_LISTEN
    )
    host_name: tuple[str, ...] = setting(
        "A name that it may be called by besides its addresses and localhost; may be given several times. On loopback "
        "all others are refused, so that no web page can reach it under a name of its own; elsewhere if one is given",
        metavar="NAME",
        default=(),
    )
    xds: str = setting(
        "Address and port where gateways and gRPC clients are told what to do; port 0 picks a free one; off: nowhere",
        metavar="HOST:PORT",
        default=DEFAULT_XDS_LISTEN,
    )
    gateway: str = setting(
        "Run a gateway, too: at this address, or on: where the file's table [gateway] says, as all about it",
        metavar="[IP:PORT]",
        bare=ON,
        default=OFF,
    )
    store: str = setting(
        "Where the catalog is kept: memory:, sqlite:///PATH or etcd://HOST:PORT,…", default_factory=default_store
    )
    advertise: str = setting(
        "Where other nodes over the same etcd reach this one (default: the address that it listens on; of a node that "
        "listens on every address, the one that faces etcd)",
        metavar="URL",
        default="",
    )
    etcd_naming: str = setting(
        "Publish usable instances as keys below this prefix in etcd, in the format that Go's gRPC resolvers read, and "
        "list what others register there: a prefix in the store's etcd, or an address, etcd://HOST[?prefix=…]. With "
        "services/ they dial etcd:///services/SERVICE, without a prefix etcd:///SERVICE",
        metavar="PREFIX",
        default="",
    )
    node: str = setting("This node's name", default_factory=platform.node)
    log_level: str = setting("debug, info, warning or error", default="info", reloads=True)
    log_format: str = setting("text or json", default="text")
    max_connections: int = setting(
        "Connections at a time; past it new ones are turned away with 503", default=20_000, reloads=True
    )
    max_catalog: int = setting(
        "Memory that registrations may take, as 512MiB or 4GiB; past it what would make them larger is refused with "
        "507, and all else goes on",
        size=True,
        default=MAX_CATALOG_BYTES,
        reloads=True,
    )
    probes: int = setting("Checks that run at the same time", default=512, reloads=True)
    probe_deny: tuple[str, ...] = setting(
        "A further network (CIDR) that instances and probes may not be in; may be given several times",
        metavar="CIDR",
        default=(),
        reloads=True,
    )
    probe_allow: tuple[str, ...] = setting(
        "A network (CIDR) that instances and probes may be in, and in no other; may be given several times",
        metavar="CIDR",
        default=(),
        reloads=True,
    )
    probe_excerpts: bool = setting(
        "Whether a failed HTTP check shows the beginning of the answer's body, to whoever may read the registry",
        default=False,
        reloads=True,
    )
    guard_share: float = setting(
        "Share of lapsed leases of a service past which expiries are held back", default=0.5, reloads=True
    )
    guard_hold: float = setting(
        "How long one mass lapse is held back at most", length=True, default=3_600.0, reloads=True
    )
    forget_after: float = setting(
        "How long a service stays known without an instance, if no route, upstream or connected client names it",
        length=True,
        default=DEFAULT_FORGET_AFTER,
        reloads=True,
    )
    heartbeat: float = setting(
        "How often a watch is sent a word when nothing changes; clients take a connection for dead after twice as long",
        length=True,
        default=DEFAULT_HEARTBEAT,
    )

    def __post_init__(self) -> None:
        check_host_port("listen", self.listen)
        for name in self.host_name:
            address("host_name", name)
        if self.advertise:
            check_url("advertise", self.advertise)
        elif self.store.startswith(SCHEME):
            advertised_url.check_listen_address(self.listen, EtcdAddress.parse(self.store, "store"))
        self.etcd_naming_address()
        if self.xds != OFF:
            check_host_port("xds", self.xds)
        elif self.gateway != OFF:
            raise Invalid("gateway", "is told what to do over --xds, and that is off")
        if self.gateway not in (ON, OFF):
            split_address("gateway", self.gateway)
        check_choice("log_level", self.log_level, LOG_LEVELS)
        check_choice("log_format", self.log_format, LOG_FORMATS)
        check_range("max_connections", self.max_connections, 1, MAX_CONNECTIONS_SETTING)
        if self.max_catalog < MIN_CATALOG_BYTES:
            raise Invalid(
                "max_catalog", f"must be at least {format_size(MIN_CATALOG_BYTES)}, not {format_size(self.max_catalog)}"
            )
        check_range("probes", self.probes, 1, MAX_PROBES_SETTING)
        self.address_policy()
        if not MIN_HEARTBEAT <= self.heartbeat <= MAX_HEARTBEAT:
            raise Invalid(
                "heartbeat",
                f"must be from {MIN_HEARTBEAT:g} to {MAX_HEARTBEAT:g} s, not {self.heartbeat:g}: clients must notice "
                f"silence within {stale_after(MAX_HEARTBEAT):g} s, so that a drain need not wait for longer than "
                f"{DEFAULT_DRAIN_WAIT:g} s",
            )
        check_range("guard_share", self.guard_share, 0.0, 1.0)
        check_range("guard_hold", self.guard_hold, 0.0, 7 * MAX_TIMEOUT_SETTING)
        check_range("forget_after", self.forget_after, 1.0, 366 * MAX_TIMEOUT_SETTING)

    def address_policy(self) -> AddressPolicy:
        """Where instances and probes may be. Raises `Invalid`.

        A registry that listens on a network denies its host's loopback, unless an allowed network holds it: whoever
        may register would have it ask what only this host may ask.
        """
        allowed, denied = parse_networks("probe_allow", self.probe_allow), parse_networks("probe_deny", self.probe_deny)
        if not is_loopback(self.listen):
            denied += [
                each
                for each in LOOPBACK_NETWORKS
                if not any(each.overlaps(net) for net in allowed if net.version == each.version)
            ]
        return AddressPolicy(tuple(map(str, denied)), self.probe_allow)

    def etcd_naming_address(self) -> EtcdAddress | None:
        """Where etcd naming is spoken; None: nowhere. Raises `Invalid`."""
        wanted = self.etcd_naming
        if not wanted:
            return None
        store = (
            EtcdAddress.parse(self.store, "store").with_default_prefix(DEFAULT_STORE_PREFIX)
            if self.store.startswith(SCHEME)
            else None
        )
        if wanted.startswith(SCHEME):
            found = EtcdAddress.parse(wanted, "etcd_naming")
        elif store is None:
            raise Invalid("etcd_naming", f"must be {SCHEME}HOST:PORT?prefix={wanted}, since the store is no etcd")
        else:
            found = replace(store, prefix=wanted)
        if store is not None and {*store.hosts} & {*found.hosts} and naming.overlaps(found.prefix, store.prefix):
            problem = f"must be a prefix apart from {store.prefix}, below which the store's keys are, such as services/"
            raise Invalid("etcd_naming", problem)
        return found


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """What `adsum run` and `adsum register` list. The model checks the values when the instance is made."""

    service: str = setting("The name under which it is found", default="")
    port: int = setting("The port it listens on", default=0)
    id: str = setting("What tells it from other instances (default: <host>-<address>-<port>)", default="")
    address: str = setting("The address it is called at (default: this host's on the way to the registry)", default="")
    scheme: str = setting("How it is spoken to: http, https, grpc …", default="http")
    weight: int = setting("Its share of the calls, compared with the others'; 0 is a reserve", default=1)
    tag: tuple[str, ...] = setting("A word to select by; may be given several times", default=())
    metadata: Mapping[str, str] = setting(
        "Anything else to say about it; may be given several times",
        metavar="KEY=VALUE",
        default_factory=lambda: EMPTY_MAPPING,
    )
    check: tuple[str, ...] = setting(
        "What the registry verifies, such as http:/health, tcp, grpc or http:8081:/health?interval=5s; may be given "
        "several times",
        default=(),
    )
    ttl: float | None = setting(
        "How long it stays passing without a renewal; none: listed until deregistered",
        length=True,
        default=DEFAULT_TTL,
    )
    grace: float = setting("How long it stays listed as critical after that", length=True, default=DEFAULT_GRACE)
    take_over: bool = setting("Whether to take the id even from a process that lives at another place", default=False)

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, MAX_PORT)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How patient `adsum run` is. Lengths of time are seconds."""

    ready_timeout: float = setting(
        "How long the program may take to answer before it is stopped; 0: register it without asking",
        length=True,
        default=60.0,
    )
    drain_timeout: float = setting(
        "How long to wait for callers to let go before stopping the program; 0: don't wait",
        length=True,
        default=DEFAULT_DRAIN_WAIT,
    )
    stop_timeout: float = setting(
        "How long the program may take to end after the signal before it is killed", length=True, default=10.0
    )
    shared_port: bool = setting(
        "Whether other programs may listen on the port already, and answer as well as this one", default=False
    )

    def __post_init__(self) -> None:
        check_range("ready_timeout", self.ready_timeout, 0.0, MAX_TIMEOUT_SETTING)
        check_range("drain_timeout", self.drain_timeout, 0.0, 300.0)
        check_range("stop_timeout", self.stop_timeout, 0.0, MAX_TIMEOUT_SETTING)


_of_gateway: Final = partial(setting, prefix="GATEWAY_")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What `adsum gateway` is told. Lengths of time are seconds."""

    listen: tuple[str, ...] = _of_gateway(
        "Address and port to take requests at; may be given several times",
        metavar="IP:PORT",
        default=(DEFAULT_GATEWAY_LISTEN,),
    )
    xds: str = _of_gateway(
        f"Where registry nodes talk to gateways; several are separated by commas (default: port {DEFAULT_XDS_PORT} of the "
        "hosts that --url names)",
        metavar="HOST:PORT",
        default="",
    )
    node: str = _of_gateway("What tells it from other gateways (default: <host>-<address>-<port>)", default="")
    tls_cert: str = _of_gateway("Speak TLS with this certificate (PEM, the whole chain)", metavar="FILE", default="")
    tls_key: str = _of_gateway("Its private key (PEM)", metavar="FILE", default="")
    default_routes: bool = _of_gateway(
        "Whether every service is reached under /SERVICE/ and as SERVICE.localhost without a route of its own",
        default=True,
    )
    trusted_hops: int = _of_gateway("How many proxies in front of it are believed about X-Forwarded-For", default=0)
    access_log: str = _of_gateway("A line on standard output for every request: json, text or off", default="json")
    monitor: str = _of_gateway(
        "Where /metrics, /healthz and /readyz are answered; off: nowhere",
        metavar="IP:PORT",
        default=DEFAULT_MONITOR_LISTEN,
    )
    concurrency: int = _of_gateway("Threads that serve requests (default: one for every processor)", default=0)
    max_connections: int = _of_gateway("Connections at a time; past it new ones are closed at once", default=50_000)
    drain_timeout: float = _of_gateway(
        "How long requests that run may take to finish when it ends or reloads; then they are cut off",
        length=True,
        default=10.0,
    )
    process_access: bool = _of_gateway(
        "Whether the gateway acts on Envoy's process from outside: on its listening sockets, /proc and shared memory. "
        "Without it, a stop can reset connections that Envoy has not accepted yet, a stop after a failed reload takes "
        "the whole --drain-timeout, and a failed reload blocks further ones until the gateway is restarted "
        "(docs/envoy.md)",
        default=True,
    )
    envoy: str = _of_gateway(
        "The Envoy to run (default: the one beside this Python, else the one on PATH)", metavar="PATH", default=""
    )
    log_level: str = _of_gateway("debug, info, warning or error", default="info")
    log_format: str = _of_gateway("text or json", default="text")

    def __post_init__(self) -> None:
        for each in filter(None, self.xds.split(",")):
            check_host_port("xds", each.strip())
        for name, each in (*(("listen", each) for each in self.listen), ("monitor", self.monitor)):
            if each != OFF and split_address(name, each)[1] == 0:
                raise Invalid(name, "must say a port; a gateway's is to be known")
        if self.node:
            validation.node_id("node", self.node)
        check_range("concurrency", self.concurrency, 0, MAX_CONCURRENCY)
        check_range("max_connections", self.max_connections, 1, MAX_CONNECTIONS_SETTING)
        check_range("drain_timeout", self.drain_timeout, 0.0, MAX_TIMEOUT_SETTING)
        check_choice("log_level", self.log_level, LOG_LEVELS)
        check_choice("log_format", self.log_format, LOG_FORMATS)
        try:
            self.profile()
        except Invalid as error:
            raise Invalid("tls_cert" if error.field == "tls_certificate" else error.field, error.problem) from None

    def profile(self, zone: str = "", roots: str = "") -> GatewayProfile:
        """What such a gateway says of itself to the registry. Raises `Invalid`."""
        return GatewayProfile(
            listen=self.listen,
            default_routes=self.default_routes,
            access_log=self.access_log,
            tls_certificate=str(Path(self.tls_cert).absolute()) if self.tls_cert else "",
            tls_key=str(Path(self.tls_key).absolute()) if self.tls_key else "",
            trusted_hops=self.trusted_hops,
            zone=zone,
            roots=roots,
        )


TABLES: Final[Mapping[str, type]] = MappingProxyType(
    {
        "client": ClientConfig,
        "serve": ServeConfig,
        "instance": InstanceConfig,
        "run": RunConfig,
        "gateway": GatewayConfig,
    }
)
"""The tables of the file."""


def check_host_port(field: str, value: str) -> None:
    """HOST:PORT, an IPv6 address in brackets."""
    match = _PLACE.fullmatch(value)
    if match is not None and int(match["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {match['port']}")
    if match is None:
        raise Invalid(field, f"must be HOST:PORT, such as {DEFAULT_LISTEN} or [::1]:23786, not {quoted(value)}")


def check_url(field: str, value: str) -> None:
    """Raises `Invalid`."""
    try:
        parts = urlsplit(value)
        complete = parts.scheme == "http" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if not complete or parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise Invalid(
            field, f"must be an address such as http://10.0.0.5:23786, not {quoted(without_credentials(value))}"
        )


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """One of `choices`."""
    if value not in choices:
        raise Invalid(field, f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {quoted(value)}")


def check_range(field: str, value: float, low: float, high: float) -> None:
    """A number from `low` to `high`."""
    if not low <= value <= high:
        raise Invalid(field, f"must be from {low:g} to {high:g}, not {value:g}")


def parse_networks(field: str, values: Sequence[str]) -> list[Network]:
    """Ranges of addresses, such as 10.0.0.0/8 or fd00::/8. Raises `Invalid`."""
    found = []
    for value in values:
        try:
            found.append(ipaddress.ip_network(value))
        except ValueError:
            raise Invalid(field, f"must be a network such as 10.0.0.0/8 or fd00::/8, not {quoted(value)}") from None
    return found


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def is_loopback(listen: str) -> bool:
    """Whether only this host reaches that HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
