"""The daemon: one registry node, composed from its configuration. `node_process` runs it until a signal ends it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Final

from adsum import dialects, stores, systemd, wire
from adsum.access.caller_identities import CallerIdentities
from adsum.access.control import AccessControl
from adsum.access.registry_addresses import RegistryAddresses
from adsum.access.upkeep import TokenUpkeep
from adsum.clock import SystemClock
from adsum.config.security import INSECURE_WARNING
from adsum.config.serve import ServeConfig
from adsum.core.address_policy import AddressPolicy
from adsum.core.errors import Invalid
from adsum.core.liveness.guard import Guard
from adsum.core.liveness.heartbeats import lost_after
from adsum.core.validation import without_credentials
from adsum.dialects.dialect import Dialect, DialectContext
from adsum.etcd.address import SCHEME, EtcdAddress
from adsum.keeper import Keeper
from adsum.listeners import Listeners
from adsum.node_security.admission import admit_node, check_open_node
from adsum.node_security.first_steps import first_steps
from adsum.node_status import NodeStatusReader
from adsum.peers import advertised_url
from adsum.peers.peers import Peers
from adsum.ports import Clock
from adsum.probes import Probes
from adsum.registry import Registry
from adsum.service_references import ServiceReferences
from adsum.telemetry import Logs, Telemetry, gauges

if TYPE_CHECKING:
    from adsum.node_security.node_security import NodeSecurity

ADDRESS_DECISION_CACHE_SIZE: Final = 65_536
"""IPv6 addresses whose check against the address policy is cached: thousands of instances share a host. For an IPv4
address the check takes no longer than the look-up."""
_log = logging.getLogger("adsum.daemon")


class Daemon:
    """A registry node. `start` and `stop` it in a running loop."""

    def __init__(self, config: ServeConfig, logs: Logs | None = None, descriptor_limit: int = sys.maxsize) -> None:
        """`descriptor_limit`: the most file descriptors that the process may have.

        Raises `Invalid` for settings that don't fit, and `AdsumError` if the node's files can't be used.
        """
        config.check_exposure(config.listen_addresses)
        self._config = config
        self._clock = SystemClock()
        self._rng = rng = Random()  # jitter
        self._telemetry = Telemetry(self._clock, logs)
        self._logs = logs
        policy = config.address_policy()
        self._set_address_policy(policy)
        self._guard = Guard(config.guard_share, config.guard_hold)
        self._probes = Probes(policy, excerpts=config.probe_excerpts)
        self._store = stores.store(config.store)
        self._sharding = self._store.join(config.node)
        self._security = security = _make_security(config, self._clock)
        self._peers = Peers(
            self._sharding,
            self._clock,
            rng,
            lost_after(config.heartbeat),
            certificates=security.peer_certificates() if security is not None else None,
            node=config.node,
        )
        self.registry = Registry(
            self._store, self._clock, self._telemetry, config.heartbeat, max_catalog_bytes=config.max_catalog
        )
        self.access = AccessControl(
            self.registry, self._clock, config.default_anonymous(), self._telemetry.access_refused
        )
        self._keeper = Keeper(
            self.registry,
            self._probes,
            self._clock,
            self._telemetry,
            rng,
            sharding=self._sharding,
            guard=self._guard,
            max_probes=config.probes,
            find_referenced=ServiceReferences(self.registry, self._is_requested).referenced,
        )
        self._keeper.set_forget_after(config.forget_after)
        self._token_upkeep = TokenUpkeep(self.registry, self.access, self._clock)
        self._identities = CallerIdentities(self.access, self._clock, config, _own_authority(self._security))
        if security is not None:
            security.on_authority = self._authority_changed
            security.request_certificate = self._peers.request_certificate
        self._status = NodeStatusReader(
            config,
            self.registry,
            self._keeper,
            self._store,
            self._sharding,
            self._telemetry,
            security,
            self._all_dialects,
            self._clock,
        )
        self._dialects = self._create_dialects()
        certificates = security.certificates if security is not None else None
        self._listeners = Listeners(
            config, self._dialects, descriptor_limit, self._telemetry.connection_shed, certificates
        )

    def _create_dialects(self) -> dict[str, Dialect]:
        """Creates every dialect of `DIALECTS` that the settings do not switch off, by name."""
        intents = wire.IntentCache()
        context = DialectContext(
            registry=self.registry,
            keeper=self._keeper,
            sharding=self._sharding,
            peers=self._peers,
            clock=self._clock,
            rng=self._rng,
            observer=self._telemetry,
            access=self.access,
            authority=self._security.authority if self._security is not None else None,
            addresses=self._registry_addresses,
            node=self._config.node,
            store=self._config.store,
            settings=self._config,
            denial_reason=self._denial_reason,
            check_address=self._check_address,
            intent=lambda snapshot: intents.get(snapshot.documents),
            node_status=self.status,
            metrics_text=self._telemetry.exposition,
        )
        created = {name: dialects.factory(name)(context) for name in dialects.DIALECTS}
        return {name: dialect for name, dialect in created.items() if dialect is not None}

    async def start(self) -> None:
        """Listens, answers 503 at first, loads the catalog, and serves it.

        Raises `ListenError`, `StoreOpenFailed`, `StoreUnavailable`, and `Invalid` for settings that don't fit where
        etcd is, or how the other nodes are protected; each message is for the operator.
        """
        self._listeners.bind()
        try:
            self._sharding.advertise(await self._url_for_others())
            await self._listeners.start()
            for dialect in self._dialects.values():
                await dialect.start()
            await self.registry.start()
            is_shared = self._config.store.startswith(SCHEME)
            if self._security is None:
                check_open_node(self.registry, is_shared=is_shared)
            self.access.start()
            await self._identities.start()
            await self._keeper.start()
            await self._sharding.start()
            await admit_node(self.registry, self._sharding, self._security, self._clock, is_shared=is_shared)
            self._token_upkeep.start()
            if self._security is not None:
                await self._security.start(self.registry, self.urls, self.addresses.get("xds", ()))
            for dialect in self._dialects.values():
                await dialect.catalog_loaded()
        except BaseException:
            await self.stop()
            raise
        gauges.add_gauges(
            self._telemetry.add_gauge, self.registry, self._keeper, self._sharding, self._listeners.http_server
        )
        self._telemetry.add_gauge(
            "adsum_insecure", "1 if the node was started with --insecure, else 0", lambda: self._config.insecure
        )
        if self._security is not None:
            self._telemetry.add_metrics(self._security.metrics)
        for dialect in self._dialects.values():
            self._telemetry.add_metrics(dialect.metrics)
        store = without_credentials(self._config.store)
        _log.info("node %s serves the catalog of %s on %s", self._config.node, store, " ".join(self.urls))
        for name, addresses in self._listeners.addresses.items():
            _log.info("the dialect %s listens on %s", name, " ".join(addresses))
        self._listeners.log_limits()
        if self._config.insecure:
            _log.warning("%s", INSECURE_WARNING)
        systemd.notify(systemd.READY)

    async def _url_for_others(self) -> str:
        if self._config.advertise or not self._config.store.startswith(SCHEME):
            return self._config.advertise or self.urls[0]
        return await advertised_url.resolve_advertised_url(
            self.urls[0], EtcdAddress.parse(self._config.store), self._rng
        )

    def _registry_addresses(self) -> RegistryAddresses:
        """Returns the addresses at which other hosts reach the nodes over TLS."""
        if self._security is None:
            return RegistryAddresses()
        peers = [peer.url for peer, _ in self._sharding.peers()]
        return self._security.registry_addresses(self._config.advertise, peers)

    async def stop(self) -> None:
        """Ends watches and long polls, stops listening, finishes answers in progress, closes the store; idempotent."""
        systemd.notify(systemd.STOPPING)
        self.registry.watches.end()
        for dialect in self._dialects.values():
            await dialect.stop()
        await self._listeners.stop()
        await self._keeper.stop()
        await self._probes.close()
        await self._peers.close()
        if self._security is not None:
            await self._security.stop()
        await self._identities.stop()
        await self._token_upkeep.stop()
        await self.access.stop()
        await self.registry.stop()

    async def reload(self, config: ServeConfig) -> None:
        """Applies the settings that can change while the node runs; logs these, and those that need a restart."""
        before = self._config
        changed = [field for field in fields(config) if getattr(config, field.name) != getattr(before, field.name)]
        reloaded = [field.name for field in changed if field.metadata["reloads"]]
        self._config = config = replace(self._config, **{name: getattr(config, name) for name in reloaded})
        policy = config.address_policy()
        self._set_address_policy(policy)
        await self._probes.reconfigure(policy, excerpts=config.probe_excerpts)
        self._guard.configure(config.guard_share, config.guard_hold)
        self._keeper.set_max_probes(config.probes)
        self.registry.max_catalog_bytes = config.max_catalog
        self._keeper.set_forget_after(config.forget_after)
        await self._identities.reload(config)
        self._listeners.reconfigure(config)
        for dialect in self._dialects.values():
            dialect.reload(config)
        if self._logs is not None:
            self._logs.set_level(config.log_level)
        _log.info("the settings were read again; changed: %s", ", ".join(reloaded) or "nothing")
        ignored = [field.name for field in changed if not field.metadata["reloads"]]
        if ignored:
            _log.warning("these settings change at the next restart only: %s", ", ".join(ignored))

    @property
    def urls(self) -> list[str]:
        """The URLs of the HTTP server; empty before `start`."""
        return self._listeners.urls

    @property
    def addresses(self) -> Mapping[str, Sequence[str]]:
        """The addresses, HOST:PORT, of the listeners of each dialect, by its name; empty before `start`."""
        return self._listeners.addresses

    @property
    def xds(self) -> str:
        """The listen address of xDS, HOST:PORT; "" if xDS is off."""
        return next(iter(self.addresses.get("xds", ())), "")

    @property
    def first_steps(self) -> str:
        """What to print at the first start of a secure node; "" at every other start."""
        security = self._security
        return first_steps(security.admin_token_file) if security is not None and security.is_new else ""

    def status(self) -> wire.NodeStatus:
        """Returns the status of this node."""
        return self._status.read()

    def _authority_changed(self) -> None:
        self._identities.authority_changed(_own_authority(self._security) or b"")

    def _all_dialects(self) -> Iterable[Dialect]:
        return self._dialects.values()

    def _is_requested(self, service: str) -> bool:
        return any(dialect.is_requested(service) for dialect in self._dialects.values())

    def _set_address_policy(self, policy: AddressPolicy) -> None:
        self._address_policy = policy
        self._cached_denial_reason = lru_cache(ADDRESS_DECISION_CACHE_SIZE)(policy.denial_reason)

    def _denial_reason(self, ip: str) -> str | None:
        return self._cached_denial_reason(ip) if ":" in ip else self._address_policy.denial_reason(ip)

    def _check_address(self, address: str) -> None:
        """Raises `Invalid` for an IP address that probes may not go to. Host names are checked when they are probed."""
        if ":" in address or address.replace(".", "").isdigit():
            reason = self._denial_reason(address)
            if reason is not None:
                raise Invalid("address", reason)


def _make_security(config: ServeConfig, clock: Clock) -> NodeSecurity | None:
    """Returns the security of a node that serves TLS; None for another one."""
    if not config.serves_tls:
        return None
    from adsum.node_security.node_security import NodeSecurity  # Other nodes don't need `cryptography`.

    return NodeSecurity(config, clock)


def _own_authority(security: NodeSecurity | None) -> bytes | None:
    """Returns the certificate of the registry's own authority; empty if it has none; None for a node without TLS.

    An authority of the operator must not sign certificates that stand for tokens.
    """
    if security is None:
        return None
    return b"" if security.authority.is_external else security.authority.certificate_pem()
