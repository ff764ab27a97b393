"""The asynchronous client of one registry: it follows services and registers instances."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from msgspec.structs import replace

from adsum.cache_files import cache_folder
from adsum.client.actor import configured_actor, default_actor
from adsum.client.calls.channel import Channel
from adsum.client.calls.options import ChannelOptions
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.credentials.choice import choose_registry
from adsum.client.errors import NeedsRegistry
from adsum.client.local_address import LOOPBACK, default_id
from adsum.client.registration.check_specs import parse_check, parse_checks
from adsum.client.registration.registrar import Registrar
from adsum.client.registration.registrar_state import RegistrarState
from adsum.client.registration.renewals import Renewals
from adsum.client.sources import open_source
from adsum.client.sources.source import Source
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import CACHE_MAX_AGE_LIMIT, DEFAULT_CACHE_MAX_AGE
from adsum.client.views.view_cache import ViewCache
from adsum.clock import SystemClock
from adsum.core.identity import PART_SEPARATOR
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.core.model import DEFAULT_GRACE, DEFAULT_TTL, EMPTY_MAPPING, Check, Instance, Registration, freeze
from adsum.core.validation import seconds, without_credentials
from adsum.ports import Clock

if TYPE_CHECKING:
    from adsum.client.native.api import RegistryApi
    from adsum.client.native.certificate_renewal import ClientCertificateRenewal

URL_VARIABLE: Final = "ADSUM_URL"
ZONE_VARIABLE: Final = "ADSUM_ZONE"
UNUSED_CHANNEL_TIMEOUT: Final = 60.0
"""Seconds after which an on-demand channel to a service without instances is closed, counted from its latest `pick`."""

_log = logging.getLogger(__name__)


class Client:
    """The client of one registry; an async context manager. Outside an `async with` block, call `close` at the end.

    It can be created anywhere, and is used in one running event loop. Raises `Invalid`.

    - `urls`: the nodes of one registry, as a list or separated by commas (default: `ADSUM_URL`, else the registry that
      this host has joined, else this host).
    - `zone`: the zone of this program (default: `ADSUM_ZONE`).
    - `cache`: the folder for the last good views; None is `$XDG_CACHE_HOME/adsum/views`, False keeps none. Cached views
      are used only while no registry answers.
    - `cache_max_age`: seconds; an older cached view is still used, and every error states its age.
    - `actor`: recorded as the author of this program's changes (default: `ADSUM_ACTOR`, else user@host).
    - `name`: the name of this program in drains that wait for it (default: program, process id and host).
    - `token_file`, `authority_file`: files with a token, and with the certificates of the authorities to trust
      (default: `ADSUM_TOKEN_FILE` and `ADSUM_AUTHORITY_FILE`, else what this host got when it joined the registry).
    - `credentials`: the folder that `adsum join` wrote (default: `ADSUM_CREDENTIALS`, else the usual places).
    - `acknowledge`: False for a program that only observes, and does not call what it resolves: no drain waits for it.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        zone: str | None = None,
        cache: str | Path | bool | None = None,
        cache_max_age: float = DEFAULT_CACHE_MAX_AGE,
        actor: str = "",
        name: str = "",
        acknowledge: bool = True,
        clock: Clock | None = None,
        rng: Random | None = None,
        source: Source | None = None,
        token_file: str | Path | None = None,
        authority_file: str | Path | None = None,
        credentials: str | Path | None = None,
    ) -> None:
        self.urls, self._credentials = choose_registry(
            urls or os.environ.get(URL_VARIABLE, ""),
            "urls" if urls else URL_VARIABLE,
            token_file=token_file,
            authority_file=authority_file,
            credentials=credentials,
        )
        self.zone = os.environ.get(ZONE_VARIABLE, "") if zone is None else zone
        self._actor = configured_actor(actor)
        self._process = secrets.token_hex(8)
        """The common start of all holders of this client: to the registry they are one process."""
        self._holders = count(1)
        seconds("cache_max_age", cache_max_age, 0.0, CACHE_MAX_AGE_LIMIT)
        self._cache_max_age = cache_max_age
        self._consumer = ConsumerIdentity(name) if acknowledge else None
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or Random()
        self._view_cache = _open_view_cache(cache, self.urls)
        self._source = source
        self._renewals: Renewals | None = None
        self._certificate_renewal: ClientCertificateRenewal | None = None
        self._resolvers: dict[str, Resolver] = {}
        self._channels: dict[tuple[str, ChannelOptions], Channel] = {}
        self._registrars: list[Registrar] = []
        self._cleanup: asyncio.Task[None] | None = None
        self._has_followed = False
        """True once a service was followed."""
        self._closed = False

    def channel(self, service: str, options: ChannelOptions | None = None, **fields: Any) -> Channel:
        """Returns the channel to a service, the same one for the same options; `fields` are fields of `ChannelOptions`.

        With `fields`, the zone is the client's unless it is among them. Needs a running event loop. Raises `Invalid`
        and `UnknownPolicy`.
        """
        if options is None:
            options = ChannelOptions(**{"zone": self.zone, **fields})
        elif fields:
            raise TypeError("give either `options` or their fields, not both")
        channel = self._channel(service, options)
        channel.keep_open()
        return channel

    def on_demand_channel(self, service: str, options: ChannelOptions | None = None) -> Channel:
        """Like `channel`, for a name that came with a request and may not be the name of a service.

        The channel is closed after `UNUSED_CHANNEL_TIMEOUT` seconds without an instance and without a `pick`.
        """
        channel = self._channel(service, options or ChannelOptions(zone=self.zone))
        if self._cleanup is None:
            self._cleanup = asyncio.create_task(self._close_unused(), name="adsum-close-unused")
        return channel

    def _channel(self, service: str, options: ChannelOptions) -> Channel:
        channel = self._channels.get((service, options))
        if channel is None or channel.closed or channel.resolver.closed:
            channel = Channel(self._resolver(service), options, clock=self._clock, rng=self._rng)
            self._channels[service, options] = channel
        return channel

    async def _close_unused(self) -> None:
        """Closes on-demand channels that were unused for too long, and drops closed channels and resolvers."""
        while True:
            await self._clock.sleep(UNUSED_CHANNEL_TIMEOUT / 2)
            since = self._clock.now() - UNUSED_CHANNEL_TIMEOUT
            for channel in list(self._channels.values()):
                if channel.last_missed_at is not None and channel.last_missed_at <= since:
                    await channel.close()
            self._channels = {key: channel for key, channel in self._channels.items() if not channel.closed}
            self._resolvers = {name: resolver for name, resolver in self._resolvers.items() if not resolver.closed}

    def resolver(self, service: str) -> Resolver:
        """Returns the resolver of a service, the same one each time. It stays open until it or the client is closed.

        Needs a running event loop. Raises `Invalid`.
        """
        resolver = self._resolver(service)
        resolver.keep_open()
        return resolver

    def _resolver(self, service: str) -> Resolver:
        resolver = self._resolvers.get(service)
        if resolver is None or resolver.closed:
            resolver = Resolver(
                service,
                self.source,
                cache=self._view_cache,
                cache_max_age=self._cache_max_age,
                clock=self._clock,
                rng=self._rng,
            )
            self._resolvers[service] = resolver
            self._has_followed = True
            resolver.start()
        return resolver

    def register(
        self,
        service: str,
        port: int,
        *,
        id: str | None = None,
        address: str | None = None,
        scheme: str = "http",
        zone: str | None = None,
        weight: int = 1,
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] = EMPTY_MAPPING,
        check: str | Check | None = None,
        checks: Iterable[str | Check] = (),
        ttl: float | None = DEFAULT_TTL,
        grace: float = DEFAULT_GRACE,
        drain_wait: float = DEFAULT_DRAIN_WAIT,
        signals: bool = True,
        holder: str = "",
        take_over: bool = False,
    ) -> Registrar:
        """Returns a registrar for one instance; start it by `async with client.register("orders", 8000): …`.

        - `id`: default `<host>-<address>-<port>`.
        - `address`: default `ADSUM_ADDRESS`, else the address of this host on the way to the registry.
        - `check`, `checks`: checks as text, such as `http:/health` (see `adsum.client.registration.check_specs`).
        - `drain_wait`: seconds that the drain at the end of the block waits at most; 0.0: no drain. Then the instance
          is deregistered.
        - `signals`: in the main thread, SIGTERM and SIGINT drain and deregister before they end the block; False leaves
          them alone (see `adsum.client.registration.termination`).
        - `holder`: names the process (default: this client). Processes that serve one socket use the same holder.
        - `take_over`: take the id even from a live process at another address.

        Raises `Invalid`.
        """
        instance = Instance(
            service=service,
            id=default_id(port, address or "") if id is None else id,
            address=address or LOOPBACK,
            port=port,
            scheme=scheme,
            zone=self.zone if zone is None else zone,
            weight=weight,
            tags=tuple(tags),
            metadata=freeze(metadata),
        )
        first = [parse_check(check) if isinstance(check, str) else check] if check is not None else []
        all_checks = parse_checks([*first, *parse_checks(checks)])
        return self.registrar(
            Registration(instance, ttl, grace, all_checks, holder),
            address=address,
            drain_wait=drain_wait,
            signals=signals,
            take_over=take_over,
        )

    def registrar(
        self,
        registration: Registration,
        *,
        address: str | None = None,
        drain_wait: float = DEFAULT_DRAIN_WAIT,
        signals: bool = True,
        take_over: bool = False,
    ) -> Registrar:
        """Returns a registrar for a registration as it is; the other parameters are those of `register`.

        Without `address` the address is determined when registering, and that of `registration` does not count. A
        registration without a holder gets one.
        """
        if not registration.holder:
            registration = replace(registration, holder=f"{self._process}{PART_SEPARATOR}{next(self._holders)}")
        source = self.source
        self._registrars = [
            registrar for registrar in self._registrars if registrar.state is not RegistrarState.STOPPED
        ]
        self._renewals = self._renewals or Renewals(source, self._clock, self._rng)
        registrar = Registrar(
            registration,
            source,
            self._renewals,
            address=address,
            drain_wait=drain_wait,
            signals=signals,
            clock=self._clock,
            rng=self._rng,
            take_over=take_over,
        )
        self._registrars.append(registrar)
        return registrar

    @property
    def source(self) -> Source:
        """The source of views and the target of registrations. Raises `RuntimeError` when the client is closed."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._source is None:
            self._source = open_source(
                self.urls,
                actor=self._actor or default_actor(),
                consumer=self._consumer,
                clock=self._clock,
                rng=self._rng,
                credentials=self._credentials,
            )
            self._certificate_renewal = self._renew_certificate()
        return self._source

    def _renew_certificate(self) -> ClientCertificateRenewal | None:
        """Begins to keep the certificate of this host valid, if it has one and an event loop runs."""
        joined = self._credentials.joined if self._credentials is not None else None
        if joined is None or joined.folder is None or joined.certificate is None or not joined.token:
            return None
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        from adsum.client.native.certificate_renewal import ClientCertificateRenewal

        return ClientCertificateRenewal(joined.folder, self._clock, self._rng)

    @property
    def api(self) -> RegistryApi:
        """The native API of the registry. Raises `NeedsRegistry` if the client uses etcd or Consul directly."""
        from adsum.client.sources.registry import RegistrySource

        if not isinstance(self.source, RegistrySource):
            url = without_credentials(self.urls[0])
            raise NeedsRegistry(f"{url} is not an Adsum registry, and this needs one: give the URL of a registry node")
        return self.source.api

    async def close(self) -> None:
        """Deregisters every instance without a drain, sends good-byes, and closes every connection. Idempotent."""
        if self._closed:
            return
        await asyncio.gather(*(registrar.stop() for registrar in self._registrars))
        self._closed = True
        if self._cleanup is not None:
            self._cleanup.cancel()
            await asyncio.gather(self._cleanup, return_exceptions=True)
        if self._renewals is not None:
            await self._renewals.close()
        if self._certificate_renewal is not None:
            await self._certificate_renewal.close()
        await asyncio.gather(*(resolver.close(goodbye=False) for resolver in self._resolvers.values()))
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        if self._source is not None:
            if self._has_followed:
                await self._source.send_goodbye()
            await self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _open_view_cache(cache: str | Path | bool | None, urls: Sequence[str]) -> ViewCache | None:
    if cache is False:
        return None
    if cache is not None and cache is not True:
        return ViewCache(Path(cache), urls)
    folder = cache_folder("views")
    if folder is None:
        _log.warning(
            "views are not cached on disk: this user has no home directory (XDG_CACHE_HOME names another place)"
        )
        return None
    return ViewCache(folder, urls)
