"""The sources of views, which also take registrations: one file each, chosen by the scheme of the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from random import Random
from types import MappingProxyType
from typing import Final, cast

from adsum.client.consumer_identity import ConsumerIdentity
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
"""Scheme → import path, imported when chosen. Each is called with (urls, actor, consumer, clock, rng)."""


def open_source(
    urls: Sequence[str], *, actor: str, consumer: ConsumerIdentity | None, clock: Clock, rng: Random
) -> Source:
    """Returns the source at `urls`, which `adsum.client.native.nodes.parse_urls` has returned: all of one kind.

    Without a `consumer` the source only observes, and no drain waits for this program.
    """
    module, _, name = SOURCES[urls[0].partition(":")[0]].partition(":")
    return cast(
        "Source", getattr(import_module(module), name)(urls, actor=actor, consumer=consumer, clock=clock, rng=rng)
    )
