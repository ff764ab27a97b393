"""Who names a service that has no instance, so that it is not forgotten: operators and connected consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Set

from adsum import wire
from adsum.registry import Registry


class ServiceReferences:
    """What the routes and upstreams of a registry name, and the consumers of this node."""

    def __init__(self, registry: Registry, is_requested: Callable[[str], bool]) -> None:
        """`is_requested`: whether a consumer that opens no watch of its own asks for that service."""
        self._registry = registry
        self._asked_for = is_requested
        self._intents = wire.IntentCache()
        """Read in one thread at a time, and not in the loop's: many routes take a while."""

    async def referenced(self, services: Collection[str]) -> Set[str]:
        """Those of the services that somebody names."""
        documents = self._registry.snapshot.documents
        declared = await asyncio.to_thread(lambda: self._intents.get(documents).named_services())
        watches = self._registry.watches
        return {each for each in services if each in declared or watches.is_watched(each) or self._asked_for(each)}
