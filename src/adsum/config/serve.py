"""The settings of a registry node: the table [serve]."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final

from adsum.access.settings import AccessSettings
from adsum.config.addresses import DEFAULT_LISTEN, is_loopback, parse_networks
from adsum.config.limits import LOG_FORMATS, LOG_LEVELS, MAX_CONNECTIONS_SETTING, MAX_TIMEOUT_SETTING
from adsum.config.security import SecuritySettings, user_data_folder
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES, Scopes
from adsum.core.address_policy import LOOPBACK_NETWORKS, AddressPolicy
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
from adsum.core.sizes import format_size
from adsum.core.validation import address
from adsum.dialects import DialectSettings
from adsum.etcd.address import SCHEME, EtcdAddress
from adsum.gateway.profile import split_address
from adsum.peers import advertised_url
from adsum.settings import OFF, ON, check_choice, check_host_port, check_range, check_url, setting

MIN_CATALOG_BYTES: Final = 1024 * 1024
"""Bytes; the smallest value that the setting `max_catalog` accepts: room for some ten registrations of the largest
size."""
MAX_PROBES_SETTING: Final = 65_536
"""The largest value that the setting `probes` accepts: each probe needs a local port of its own."""


def default_store() -> str:
    """Returns the URL of the SQLite file in the XDG data folder. Raises `Invalid` if the user has no home folder."""
    return f"sqlite:///{user_data_folder('store', '--store sqlite:////PATH') / 'adsum.db'}"


@dataclass(frozen=True)
class NodeConfig(SecuritySettings):
    """The settings of a registry node that belong to no dialect. Durations are in seconds."""

    listen: str = setting("HTTP listen address; port 0 picks a free port", metavar="HOST:PORT", default=DEFAULT_LISTEN)
    host_name: tuple[str, ...] = setting(
        "Accept this name in the Host header, besides localhost and IP addresses; may be given several times. A node "
        "on loopback refuses all other names, so that a web page can't reach it through a browser (DNS rebinding); on "
        "other addresses, names are checked only if this is set",
        metavar="NAME",
        default=(),
    )
    gateway: str = setting(
        "Also run a gateway: IP:PORT, or `on` to use [gateway] from the config file",
        metavar="[IP:PORT]",
        bare=ON,
        default=OFF,
    )
    store: str = setting(
        "Store of the catalog: memory:, sqlite:///PATH or etcd://HOST:PORT,… (default: a SQLite file in your data "
        "folder)",
        default_factory=default_store,
    )
    advertise: str = setting(
        "URL under which other nodes over the same etcd reach this node (default: the listen address; if the node "
        "listens on every address, the one from which it reaches etcd)",
        metavar="URL",
        default="",
    )
    node: str = setting("Name of this node (default: the host name)", default_factory=platform.node)
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

    def check_node(self) -> None:
        """Raises `Invalid` if a value is wrong."""
        check_host_port("listen", self.listen)
        self.check_security()
        for name in self.host_name:
            address("host_name", name)
        if self.advertise:
            check_url("advertise", self.advertise)
            if self.serves_tls and not self.advertise.startswith("https://"):
                raise Invalid(
                    "advertise", f"must begin with https://, since this node serves TLS, not {self.advertise}"
                )
        elif self.store.startswith(SCHEME):
            advertised_url.check_listen_address(self.listen, EtcdAddress.parse(self.store, "store"), self.url_scheme)
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

    def default_anonymous(self) -> Scopes:
        """Returns the scopes of callers that prove nothing, while no token `anonymous` is declared."""
        return EVERYTHING if self.is_open else NO_SCOPES

    @property
    def url_scheme(self) -> str:
        """The scheme of the node's URLs."""
        return "https" if self.serves_tls else "http"

    def address_policy(self) -> AddressPolicy:
        """Returns the networks in which instances and probes may be. Raises `Invalid`.

        A registry that listens on a network also denies the loopback of its host, unless an allowed network contains
        it. Otherwise a client that may register could make the registry probe services that only this host may reach.
        """
        allowed, denied = parse_networks("probe_allow", self.probe_allow), parse_networks("probe_deny", self.probe_deny)
        if not is_loopback(self.listen):
            denied += [
                loopback
                for loopback in LOOPBACK_NETWORKS
                if not any(loopback.overlaps(net) for net in allowed if net.version == loopback.version)
            ]
        return AddressPolicy(tuple(map(str, denied)), self.probe_allow)


@dataclass(frozen=True, slots=True)
class ServeConfig(DialectSettings, AccessSettings, NodeConfig):
    """All settings of `adsum serve`: those of the node, and those of its dialects."""

    @property
    def listen_addresses(self) -> dict[str, str]:
        """The addresses of all listeners, by the setting that has each of them."""
        return {"listen": self.listen, **self.dialect_addresses()}

    def __post_init__(self) -> None:
        self.check_node()
        self.check_access()
        if self.certificate_scopes and not self.tls_client_ca:
            raise Invalid(
                "certificate_scopes", "needs --tls-client-ca: the authorities of the certificates that it concerns"
            )
        self.check_dialects(self.store)
        if self.xds == OFF and self.gateway != OFF:
            raise Invalid("gateway", "needs --xds, which is off: the gateway gets its configuration over xDS")
        if self.xds != OFF and self.tls_cert and not self.tls_client_ca:
            raise Invalid(
                "tls_client_ca",
                "must be given beside --tls-cert, since clients of xDS prove who they are by certificates; or switch "
                "xDS off with --xds off",
            )
