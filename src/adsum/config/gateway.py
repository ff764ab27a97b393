"""The settings of a gateway: the table [gateway]."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from adsum.config.addresses import DEFAULT_GATEWAY_LISTEN, DEFAULT_MONITOR_LISTEN
from adsum.config.limits import LOG_FORMATS, LOG_LEVELS, MAX_CONNECTIONS_SETTING, MAX_TIMEOUT_SETTING
from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.dialects.xds.settings import DEFAULT_XDS_PORT
from adsum.gateway.profile import GatewayProfile, split_address
from adsum.settings import OFF, check_choice, check_host_port, check_range, setting

MAX_CONCURRENCY: Final = 1_024
"""The largest number of threads that the setting `concurrency` accepts: more than any machine has processors."""

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
    xds_authority: str = _gateway_setting(
        "Speak TLS to the registry over xDS, and trust these authorities: a PEM file (default: what `adsum join` "
        "has got on this host; with --xds-cert: the authorities that the system trusts)",
        metavar="FILE",
        default="",
    )
    xds_cert: str = _gateway_setting(
        "Certificate that the gateway presents to the registry: a PEM file with the whole chain. It is read again when "
        "it changes (default: what `adsum join` has got on this host)",
        metavar="FILE",
        default="",
    )
    xds_key: str = _gateway_setting("Private key of that certificate: a PEM file", metavar="FILE", default="")
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
    process_access: bool = _gateway_setting(
        "Act on Envoy's process from outside: on its listening sockets, /proc and shared memory. "
        "Without it, a stop can reset connections that Envoy has not accepted yet, a stop after a failed reload takes "
        "the whole --drain-timeout, and a failed reload blocks further ones until the gateway is restarted "
        "(docs/envoy.md)",
        default=True,
    )
    envoy: str = _gateway_setting(
        "Envoy binary to run (default: the one beside this Python, else the one on PATH)", metavar="PATH", default=""
    )
    log_level: str = _gateway_setting("Least severe level to log: debug, info, warning or error", default="info")
    log_format: str = _gateway_setting("Format of log lines: text or json", default="text")

    def __post_init__(self) -> None:
        for address in filter(None, self.xds.split(",")):
            check_host_port("xds", address.strip())
        for name, address in (*(("listen", address) for address in self.listen), ("monitor", self.monitor)):
            if address != OFF and split_address(name, address)[1] == 0:
                raise Invalid(name, "must have a port other than 0: the port of a gateway must be known in advance")
        if bool(self.xds_cert) is not bool(self.xds_key):
            raise Invalid("xds_cert" if self.xds_key else "xds_key", "must be given together with the other one")
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
