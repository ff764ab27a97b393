"""References to services by routes, upstreams and connected consumers. A referenced service is not forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Set

from adsum import wire
from adsum.registry import Registry


class ServiceReferences:
    """The services that the routes and upstreams of a registry, and the consumers of this node, reference."""

    def __init__(self, registry: Registry, is_requested: Callable[[str], bool]) -> None:
        """`is_requested` returns whether a consumer without a watch of its own (a gRPC client) uses a service."""
        self._registry = registry
        self._is_requested = is_requested
        self._intents = wire.IntentCache()
        """Used in one thread at a time, outside the event loop, because many routes take a while."""

    async def referenced(self, services: Collection[str]) -> Set[str]:
        """Returns those of `services` that are referenced."""
        documents = self._registry.snapshot.documents
        declared = await asyncio.to_thread(lambda: self._intents.get(documents).named_services())
        watches = self._registry.watches
        return {
            service
            for service in services
            if service in declared or watches.is_watched(service) or self._is_requested(service)
        }
