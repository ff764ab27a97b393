"""The sources of views, which also take registrations: one file each, chosen by the scheme of the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from random import Random
from types import MappingProxyType
from typing import Final, cast

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.sources.source import Source
from adsum.ports import Clock

SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "consul": "adsum.client.sources.consul:ConsulSource",
        "etcd": "adsum.client.sources.etcd:EtcdSource",
        "http": "adsum.client.sources.registry:RegistrySource",
        "https": "adsum.client.sources.registry:RegistrySource",
    }
)
"""Scheme → import path, imported when chosen. Each is called with (urls, actor, consumer, clock, rng).

A registry is also called with the credentials of this client, if it has any."""


def open_source(
    urls: Sequence[str],
    *,
    actor: str,
    consumer: ConsumerIdentity | None,
    clock: Clock,
    rng: Random,
    credentials: ClientCredentials | None = None,
) -> Source:
    """Returns the source at `urls`, which `adsum.client.native.nodes.parse_urls` has returned: all of one kind.

    Without a `consumer` the source only observes, and no drain waits for this program. `credentials` are those for an
    Adsum registry; the addresses of other sources have their own.
    """
    module, _, name = SOURCES[urls[0].partition(":")[0]].partition(":")
    options = {"credentials": credentials} if credentials is not None else {}
    make = getattr(import_module(module), name)
    return cast("Source", make(urls, actor=actor, consumer=consumer, clock=clock, rng=rng, **options))
