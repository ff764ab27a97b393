"""The client: one registry, the services that are followed and the instances that are registered through it."""

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

from adsum.cache_files import cache_folder
from adsum.client.actor import configured_actor, default_actor
from adsum.client.calls.channel import Channel
from adsum.client.calls.options import ChannelOptions
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import NeedsRegistry
from adsum.client.local_address import LOOPBACK, default_id
from adsum.client.native.nodes import DEFAULT_URL, parse_urls
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

URL_VARIABLE: Final = "ADSUM_URL"
ZONE_VARIABLE: Final = "ADSUM_ZONE"
UNUSED_CHANNEL_TIMEOUT: Final = 60.0
"""Seconds for which a name that a request brought, and that nobody is registered under, is followed at least."""

_log = logging.getLogger(__name__)


class Client:
    """Made anywhere, used in one running loop; an async context manager, or `close` it.

    `urls` are the nodes of one registry, as a list or separated by commas (default: `ADSUM_URL`, else this host).
    `zone` is our own (default: `ADSUM_ZONE`). `cache` is the folder for the last good views: None is
    `$XDG_CACHE_HOME/adsum/views`, False keeps none. They are used only while no registry answers; one that is older
    than `cache_max_age` seconds is used with a word in each error. `actor` is recorded as the author of what we change
    (default: `ADSUM_ACTOR`, else user@host).
    `name` is how a drain that waits for this program calls it (default: program, process and host). With `acknowledge` False
    nothing is called by what is resolved here, so that no drain waits for this client. Raises `Invalid`.
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
    ) -> None:
        chosen = urls or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        self.urls = parse_urls(chosen, "urls" if urls else URL_VARIABLE)
        self.zone = os.environ.get(ZONE_VARIABLE, "") if zone is None else zone
        self._actor = configured_actor(actor)
        self._process = secrets.token_hex(8)
        """What the holders of all that is registered here begin with: to the registry we are one process."""
        self._holders = count(1)
        seconds("cache_max_age", cache_max_age, 0.0, CACHE_MAX_AGE_LIMIT)
        self._cache_max_age = cache_max_age
        self._consumer = ConsumerIdentity(name) if acknowledge else None
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or Random()
        self._shelf = _shelf(cache, self.urls)
        self._source = source
        self._renewals: Renewals | None = None
        self._resolvers: dict[str, Resolver] = {}
        self._channels: dict[tuple[str, ChannelOptions], Channel] = {}
        self._registrars: list[Registrar] = []
        self._tidying: asyncio.Task[None] | None = None
        self._followed = False
        """Whether any service was ever followed."""
        self._closed = False

    def channel(self, service: str, options: ChannelOptions | None = None, **fields: Any) -> Channel:
        """The channel to a service, the same one for the same options; `fields` are those of `ChannelOptions`.

        Without `options` its zone is the client's, unless given. Needs a running loop. Raises `Invalid` and
        `UnknownPolicy`.
        """
        if options is None:
            options = ChannelOptions(**{"zone": self.zone, **fields})
        elif fields:
            raise TypeError("give either options or their fields")
        channel = self._channel(service, options)
        channel.keep_open()
        return channel

    def on_demand_channel(self, service: str, options: ChannelOptions | None = None) -> Channel:
        """As `channel`, for a name that a request brought and that may be nobody's: after `UNUSED_CHANNEL_TIMEOUT` seconds in which no
        instance was registered and nobody asked, it is closed.
        """
        channel = self._channel(service, options or ChannelOptions(zone=self.zone))
        if self._tidying is None:
            self._tidying = asyncio.create_task(self._tidy(), name="adsum-tidy")
        return channel

    def _channel(self, service: str, options: ChannelOptions) -> Channel:
        channel = self._channels.get((service, options))
        if channel is None or channel.closed or channel.resolver.closed:
            channel = Channel(self._resolver(service), options, clock=self._clock, rng=self._rng)
            self._channels[service, options] = channel
        return channel

    async def _tidy(self) -> None:
        """Close channels that were asked for in vain, and let go of what is closed."""
        while True:
            await self._clock.sleep(UNUSED_CHANNEL_TIMEOUT / 2)
            since = self._clock.now() - UNUSED_CHANNEL_TIMEOUT
            for channel in list(self._channels.values()):
                if channel.last_missed_at is not None and channel.last_missed_at <= since:
                    await channel.close()
            self._channels = {key: channel for key, channel in self._channels.items() if not channel.closed}
            self._resolvers = {key: each for key, each in self._resolvers.items() if not each.closed}

    def resolver(self, service: str) -> Resolver:
        """The resolver of a service, the same one each time. It stays open until it, or the client, is closed. Raises
        `Invalid`. Needs a running loop.
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
                cache=self._shelf,
                cache_max_age=self._cache_max_age,
                clock=self._clock,
                rng=self._rng,
            )
            self._resolvers[service] = resolver
            self._followed = True
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
        """A registrar for one instance of a service, to be started: `async with client.register("orders", 8000): …`.

        `id` is `<host>-<address>-<port>` by default. `address` is by default `ADSUM_ADDRESS`, else the address of this
        host that faces the registry. `check` and `checks` are words such as `http:/health` (see `adsum.client.registration.check_specs`).
        On exit it drains for at most `drain_wait` seconds (0.0: not at all) and deregisters; in the main thread SIGTERM
        and SIGINT do so first, before they end the block, unless `signals` is False (`client.registering.termination`).
        `holder` names the process (default: the client's own); processes that serve one socket together give the same
        one. `take_over` takes the id even from a process that lives elsewhere. Raises `Invalid`.
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
        one = [parse_check(check) if isinstance(check, str) else check] if check is not None else []
        registration = Registration(
            instance,
            ttl,
            grace,
            parse_checks([*one, *parse_checks(checks)]),
            holder or f"{self._process}{PART_SEPARATOR}{next(self._holders)}",
        )
        source = self.source
        self._registrars = [known for known in self._registrars if known.state is not RegistrarState.STOPPED]
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
        """Where views come from and registrations go to. Raises `RuntimeError` once closed."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._source is None:
            self._source = open_source(
                self.urls,
                actor=self._actor or default_actor(),
                consumer=self._consumer,
                clock=self._clock,
                rng=self._rng,
            )
        return self._source

    @property
    def api(self) -> RegistryApi:
        """The native API of the registry, call by call. Raises `NeedsRegistry` if it is no registry of ours."""
        from adsum.client.sources.registry import RegistrySource

        if not isinstance(self.source, RegistrySource):
            raise NeedsRegistry(
                f"{without_credentials(self.urls[0])} is no registry of Adsum's, and only that can do this"
            )
        return self.source.api

    async def close(self) -> None:
        """Deregister what is registered (without a drain), say good-bye, and let go of everything. Idempotent."""
        if self._closed:
            return
        await asyncio.gather(*(registrar.stop() for registrar in self._registrars))
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        if self._renewals is not None:
            await self._renewals.close()
        await asyncio.gather(*(resolver.close(goodbye=False) for resolver in self._resolvers.values()))
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        if self._source is not None:
            if self._followed:
                await self._source.send_goodbye()
            await self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _shelf(cache: str | Path | bool | None, urls: Sequence[str]) -> ViewCache | None:
    if cache is False:
        return None
    if cache is not None and cache is not True:
        return ViewCache(Path(cache), urls)
    folder = cache_folder("views")
    if folder is None:
        _log.warning("views are not kept on disk: this user has no home directory (XDG_CACHE_HOME names another place)")
        return None
    return ViewCache(folder, urls)
