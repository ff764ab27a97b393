"""The settings of each table of the configuration file: one frozen dataclass a table, validated when it is made.

A field defines a setting completely. Its name is the key in the file, `ADSUM_NAME` in the environment and `--name` on
the command line. Its type decides how texts are parsed. Its metadata is what `--help` shows. Constructors raise
`Invalid` naming the field.
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
"""The port spells A-D-S-U-M on a phone's keys."""
DEFAULT_URL: Final = f"http://{DEFAULT_LISTEN}"
DEFAULT_XDS_PORT: Final = 23787
"""The port on which a registry node serves xDS to gateways and gRPC clients."""
DEFAULT_XDS_LISTEN: Final = f"127.0.0.1:{DEFAULT_XDS_PORT}"
DEFAULT_GATEWAY_LISTEN: Final = "127.0.0.1:8080"
"""The address on which a gateway accepts requests."""
DEFAULT_MONITOR_LISTEN: Final = "127.0.0.1:23788"
"""The address on which a gateway serves its metrics and health."""
OFF: Final = "off"
ON: Final = "on"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")
MAX_CONNECTIONS_SETTING: Final = 1_000_000
"""The largest value that the settings `max_connections` accept; a larger one is taken for a typing error."""
MIN_CATALOG_BYTES: Final = 1024 * 1024
"""Bytes; the smallest value that the setting `max_catalog` accepts: room for some ten registrations of the largest
size."""
MAX_CONCURRENCY: Final = 1_024
"""The largest number of threads that the setting `concurrency` accepts: more than any machine has processors."""
MAX_PROBES_SETTING: Final = 65_536
"""The largest value that the setting `probes` accepts: each probe needs a local port of its own."""
MAX_TIMEOUT_SETTING: Final = 86_400.0
"""Seconds; the longest wait that a setting accepts."""

_PLACE: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(?P<port>\d{1,5})")


def setting(
    text: str,
    *,
    duration: bool = False,
    size: bool = False,
    metavar: str = "",
    bare: str = "",
    prefix: str = "",
    reloads: bool = False,
    **options: Any,
) -> Any:
    """Returns a dataclass field with the help text of its setting.

    `duration`: the value is in seconds and may be written as 200ms, 5s, 1m30s or 2h. `size`: the value is in bytes and
    may be written as 512MiB or 2GiB. `bare`: the value of the flag when it is given without one. `prefix`: goes before
    the name of the environment variable, where another table has a setting of the same name. `reloads`: a registry
    takes a new value on SIGHUP, without a restart.
    """
    described = {"help": text, "duration": duration, "size": size, "metavar": metavar, "bare": bare, "prefix": prefix}
    return field(metadata={**described, "reloads": reloads}, **options)


def default_store() -> str:
    """Returns the URL of the SQLite file in the XDG data folder. Raises `Invalid` if the user has no home folder."""
    try:
        home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    except RuntimeError:  # A container may run under a user id that has no home.
        raise Invalid(
            "store", "must be given, since this user has no home: use --store sqlite:////PATH, or set XDG_DATA_HOME"
        ) from None
    return f"sqlite:///{Path(home) / 'adsum' / 'adsum.db'}"


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The settings of a client of the registry: its addresses, and who the client is."""

    url: str = setting(
        "Address of the registry; separate several nodes of one registry by commas. `run`, `register` and `resolve` "
        "also work without a registry: etcd://HOST:PORT,… or consul://HOST:PORT",
        default=DEFAULT_URL,
    )
    zone: str = setting("Zone of this host; callers prefer instances of their own zone", default="")
    actor: str = setting(
        "The name under which changes are recorded in the history (default: user@host)", default_factory=default_actor
    )
    cache_max_age: float = setting(
        "Age up to which a view cached on this host is used silently while no registry answers; an older one is still "
        "used, and each error says so",
        duration=True,
        default=DEFAULT_CACHE_MAX_AGE,
    )

    def __post_init__(self) -> None:
        check_range("cache_max_age", self.cache_max_age, 0.0, CACHE_MAX_AGE_LIMIT)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The settings of `adsum serve`. Durations are in seconds."""

    listen: str = setting("HTTP listen address; port 0 picks a free port", metavar="HOST:PORT", default=DEFAULT_LISTEN)
    host_name: tuple[str, ...] = setting(
        "Accept this name in the Host header, besides localhost and IP addresses; may be given several times. A node "
        "on loopback refuses all other names, so that a web page can't reach it through a browser (DNS rebinding); on "
        "other addresses, names are checked only if this is set",
        metavar="NAME",
        default=(),
    )
    xds: str = setting(
        "xDS listen address, for gateways and gRPC clients; port 0 picks a free port; `off` disables it",
        metavar="HOST:PORT",
        default=DEFAULT_XDS_LISTEN,
    )
    gateway: str = setting(
        "Also run a gateway: IP:PORT, or `on` to use [gateway] from the config file",
        metavar="[IP:PORT]",
        bare=ON,
        default=OFF,
    )
    store: str = setting(
        "Store of the catalog: memory:, sqlite:///PATH or etcd://HOST:PORT,…", default_factory=default_store
    )
    advertise: str = setting(
        "URL under which other nodes over the same etcd reach this node (default: the listen address; if the node "
        "listens on every address, the one from which it reaches etcd)",
        metavar="URL",
        default="",
    )
    etcd_naming: str = setting(
        "Publish usable instances as keys below this prefix in etcd, in the format of etcd's gRPC naming, and list the "
        "instances that others register there. A prefix in the store's etcd, or an address: etcd://HOST[?prefix=…]. "
        "With the prefix services/ Go clients dial etcd:///services/SERVICE, with an empty prefix etcd:///SERVICE",
        metavar="PREFIX",
        default="",
    )
    node: str = setting("Name of this node", default_factory=platform.node)
    log_level: str = setting("Least severe level to log: debug, info, warning or error", default="info", reloads=True)
    log_format: str = setting("Format of log lines: text or json", default="text")
    max_connections: int = setting(
        "Most HTTP connections at the same time; further ones are refused with 503", default=20_000, reloads=True
    )
    max_catalog: int = setting(
        "Most memory that registrations may take, such as 512MiB or 4GiB. Beyond it, requests that would add to the "
        "catalog are refused with 507; all others are served",
        size=True,
        default=MAX_CATALOG_BYTES,
        reloads=True,
    )
    probes: int = setting("Most health probes that run at the same time", default=512, reloads=True)
    probe_deny: tuple[str, ...] = setting(
        "Refuse instances and probes in this network, in addition to those that are always refused; may be given "
        "several times",
        metavar="CIDR",
        default=(),
        reloads=True,
    )
    probe_allow: tuple[str, ...] = setting(
        "Allow instances and probes in this network only; may be given several times (default: every network that is "
        "not refused)",
        metavar="CIDR",
        default=(),
        reloads=True,
    )
    probe_excerpts: bool = setting(
        "Quote the beginning of the response body in the note of a failed HTTP check; everyone who can read the "
        "registry sees it",
        default=False,
        reloads=True,
    )
    guard_share: float = setting(
        "Hold back the expiries of a service when more than this share of its leases has lapsed; 1 turns the guard off",
        default=0.5,
        reloads=True,
    )
    guard_hold: float = setting(
        "Longest time for which the guard holds back the expiries of one mass lapse",
        duration=True,
        default=3_600.0,
        reloads=True,
    )
    forget_after: float = setting(
        "Time after which a service without an instance is forgotten, unless a route, an upstream or a connected "
        "client names it",
        duration=True,
        default=DEFAULT_FORGET_AFTER,
        reloads=True,
    )
    heartbeat: float = setting(
        "Interval of the heartbeats on a watch without changes; clients treat a connection as dead after two intervals "
        "of silence",
        duration=True,
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
            raise Invalid("gateway", "needs --xds, which is off: the gateway gets its configuration over xDS")
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
                f"silence within {stale_after(MAX_HEARTBEAT):g} s, so that a drain never waits longer than "
                f"{DEFAULT_DRAIN_WAIT:g} s",
            )
        check_range("guard_share", self.guard_share, 0.0, 1.0)
        check_range("guard_hold", self.guard_hold, 0.0, 7 * MAX_TIMEOUT_SETTING)
        check_range("forget_after", self.forget_after, 1.0, 366 * MAX_TIMEOUT_SETTING)

    def address_policy(self) -> AddressPolicy:
        """Returns the networks in which instances and probes may be. Raises `Invalid`.

        A registry that listens on a network also denies the loopback of its host, unless an allowed network contains
        it. Otherwise a client that may register could make the registry probe services that only this host may reach.
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
        """Returns the etcd that etcd naming uses; None if it is not used. Raises `Invalid`."""
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
            raise Invalid("etcd_naming", f"must be {SCHEME}HOST:PORT?prefix={wanted}, since the store is not an etcd")
        else:
            found = replace(store, prefix=wanted)
        if store is not None and {*store.hosts} & {*found.hosts} and naming.overlaps(found.prefix, store.prefix):
            problem = f"must not overlap {store.prefix}, where the store's keys are: use another one, such as services/"
            raise Invalid("etcd_naming", problem)
        return found


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """The instance that `adsum run` and `adsum register` register. Its values are validated when it is made."""

    service: str = setting("Name of the service that the instance provides", default="")
    port: int = setting("Port that the instance listens on", default=0)
    id: str = setting("Id of the instance, unique within its service (default: <host>-<address>-<port>)", default="")
    address: str = setting(
        "Address at which the instance is called (default: the address from which this host reaches the registry)",
        default="",
    )
    scheme: str = setting("Scheme of the instance's URL: http, https, grpc …", default="http")
    weight: int = setting(
        "Share of the calls, relative to the weights of the other instances; 0: only called if no other can be",
        default=1,
    )
    tag: tuple[str, ...] = setting("Tag by which instances are selected; may be given several times", default=())
    metadata: Mapping[str, str] = setting(
        "Metadata of the instance; may be given several times",
        metavar="KEY=VALUE",
        default_factory=lambda: EMPTY_MAPPING,
    )
    check: tuple[str, ...] = setting(
        "Health check that the registry runs: http:/health, tcp, grpc or, with options, "
        "http:8081:/health?interval=5s; may be given several times",
        default=(),
    )
    ttl: float | None = setting(
        "Time for which the lease is valid without a renewal; the instance is critical after it. none: no lease, "
        "listed until deregistered",
        duration=True,
        default=DEFAULT_TTL,
    )
    grace: float = setting(
        "Time for which the instance stays listed as critical after its lease has lapsed; then it is removed",
        duration=True,
        default=DEFAULT_GRACE,
    )
    take_over: bool = setting("Take the id even from a live process at another address or port", default=False)

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, MAX_PORT)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The time limits of `adsum run`, in seconds, and whether its port is shared."""

    ready_timeout: float = setting(
        "Time within which the program must pass its checks; otherwise it is stopped. 0: register it without checking",
        duration=True,
        default=60.0,
    )
    drain_timeout: float = setting(
        "Longest wait for callers to stop calling before the program is stopped; 0: don't wait",
        duration=True,
        default=DEFAULT_DRAIN_WAIT,
    )
    stop_timeout: float = setting(
        "Time within which the program must end after the signal; otherwise it is killed", duration=True, default=10.0
    )
    shared_port: bool = setting(
        "Start the program even if another one already answers on its port, because both serve it", default=False
    )

    def __post_init__(self) -> None:
        check_range("ready_timeout", self.ready_timeout, 0.0, MAX_TIMEOUT_SETTING)
        check_range("drain_timeout", self.drain_timeout, 0.0, 300.0)
        check_range("stop_timeout", self.stop_timeout, 0.0, MAX_TIMEOUT_SETTING)


_gateway_setting: Final = partial(setting, prefix="GATEWAY_")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The settings of `adsum gateway`. Durations are in seconds."""

    listen: tuple[str, ...] = _gateway_setting(
        "Address on which the gateway accepts requests; may be given several times",
        metavar="IP:PORT",
        default=(DEFAULT_GATEWAY_LISTEN,),
    )
    xds: str = _gateway_setting(
        "xDS address of the registry; separate several nodes by commas (default: port "
        f"{DEFAULT_XDS_PORT} of the hosts in --url)",
        metavar="HOST:PORT",
        default="",
    )
    node: str = _gateway_setting(
        "Name of this gateway, unique among gateways (default: <host>-<address>-<port>)", default=""
    )
    tls_cert: str = _gateway_setting(
        "Serve TLS with this certificate: a PEM file with the whole chain", metavar="FILE", default=""
    )
    tls_key: str = _gateway_setting("Private key of the certificate: a PEM file", metavar="FILE", default="")
    default_routes: bool = _gateway_setting(
        "Route /SERVICE/ and the host SERVICE.localhost to every service, also without declared routes", default=True
    )
    trusted_hops: int = _gateway_setting(
        "Number of proxies in front of the gateway whose X-Forwarded-For is trusted", default=0
    )
    access_log: str = _gateway_setting(
        "Log every request to standard output, in this format: json, text or off", default="json"
    )
    monitor: str = _gateway_setting(
        "Address that serves /metrics, /healthz and /readyz; `off` disables it",
        metavar="IP:PORT",
        default=DEFAULT_MONITOR_LISTEN,
    )
    concurrency: int = _gateway_setting("Threads that serve requests (default: one for every processor)", default=0)
    max_connections: int = _gateway_setting(
        "Most connections at the same time; further ones are closed at once", default=50_000
    )
    drain_timeout: float = _gateway_setting(
        "Time for running requests to finish when the gateway stops or reloads; then they are cut off",
        duration=True,
        default=10.0,
    )
    envoy: str = _gateway_setting(
        "Envoy binary to run (default: the one beside this Python, else the one on PATH)", metavar="PATH", default=""
    )
    log_level: str = _gateway_setting("Least severe level to log: debug, info, warning or error", default="info")
    log_format: str = _gateway_setting("Format of log lines: text or json", default="text")

    def __post_init__(self) -> None:
        for each in filter(None, self.xds.split(",")):
            check_host_port("xds", each.strip())
        for name, each in (*(("listen", each) for each in self.listen), ("monitor", self.monitor)):
            if each != OFF and split_address(name, each)[1] == 0:
                raise Invalid(name, "must have a port other than 0: the port of a gateway must be known in advance")
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
        """Returns the description of the gateway that the registry receives. Raises `Invalid`."""
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
"""The tables of the configuration file."""


def check_host_port(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is HOST:PORT; an IPv6 address stands in brackets."""
    match = _PLACE.fullmatch(value)
    if match is not None and int(match["port"]) > MAX_PORT:
        raise Invalid(field, f"must have a port from 0 to {MAX_PORT}, not {match['port']}")
    if match is None:
        raise Invalid(field, f"must be HOST:PORT, such as {DEFAULT_LISTEN} or [::1]:23786, not {quoted(value)}")


def check_url(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is an http:// URL without a path."""
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
    """Raises `Invalid` unless the value is one of `choices`."""
    if value not in choices:
        raise Invalid(field, f"must be {', '.join(choices[:-1])} or {choices[-1]}, not {quoted(value)}")


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Raises `Invalid` unless the value is from `low` to `high`."""
    if not low <= value <= high:
        raise Invalid(field, f"must be from {low:g} to {high:g}, not {value:g}")


def parse_networks(field: str, values: Sequence[str]) -> list[Network]:
    """Parses ranges of addresses, such as 10.0.0.0/8 or fd00::/8. Raises `Invalid`."""
    found = []
    for value in values:
        try:
            found.append(ipaddress.ip_network(value))
        except ValueError:
            raise Invalid(field, f"must be a network such as 10.0.0.0/8 or fd00::/8, not {quoted(value)}") from None
    return found


def is_loopback(listen: str) -> bool:
    """Returns whether only this host can reach the HOST:PORT."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
