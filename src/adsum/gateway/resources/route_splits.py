"""The traffic splits that routes depend on, kept from revision to revision at the cost of what changed."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core.catalog.snapshots import Snapshot
from adsum.gateway.encoding.clusters import http_versions
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, HttpVersion, TrafficSplit, TrafficSplits
from adsum.gateway.resources.service_intents import ServiceIntents


class RouteSplits(NamedTuple):
    """The part of a catalog that routes depend on: how requests are split between clusters.

    `splits` has the splits of the selectors of services that the intent names, and of the `mixed` services. `mixed` are
    the services whose instances speak both versions of HTTP; each selector of theirs has two clusters.
    """

    splits: TrafficSplits
    mixed: Set[str]

    def advance(
        self,
        snapshot: Snapshot,
        old_intents: ServiceIntents,
        intents: ServiceIntents,
        addresses: Mapping[str, str],
        touched: Set[str],
    ) -> RouteSplits:
        """Returns the splits after the `touched` services changed; the same object if no split changed."""
        old = {
            name: self.splits[name]
            for service in touched
            for name in old_intents.selectors(service)
            if name in self.splits
        }
        new: dict[str, TrafficSplit] = {}
        mixed = set[str]()
        for service in touched:
            listings = snapshot.service(service).listings.values()
            protocol = intents.upstream(service).protocol
            versions = http_versions.http_versions((listing.instance for listing in listings), protocol)
            if len(versions) > 1:
                mixed.add(service)
            elif service not in intents.named_services:
                continue
            for name, selector in intents.selectors(service).items():
                if versions == [HttpVersion.HTTP1] and name not in intents.shared_selectors:
                    continue
                selected = [item for item in listings if selector.selects_all or selector.selects(item.instance)]
                split = http_versions.traffic_split(versions, selected, addresses)
                if name in intents.shared_selectors and http_versions.is_empty(selected, addresses):
                    split = replace(split, is_empty=True)
                if split != ALL_HTTP1 or len(versions) > 1:  # `unrouted_clusters` needs each split of a mixed service.
                    new[name] = split
        if new == old and mixed == self.mixed & touched:
            return self
        splits = {**{name: self.splits[name] for name in self.splits.keys() - old.keys()}, **new}
        return RouteSplits(MappingProxyType(splits), self.mixed - touched | mixed)


NO_SPLITS: Final = RouteSplits(MappingProxyType({}), frozenset())
