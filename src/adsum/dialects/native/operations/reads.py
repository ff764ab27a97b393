"""Reading: services, instances, history; conditional, and waiting for what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from adsum import wire
from adsum.core.errors import UnknownInstance
from adsum.core.model import Key, Outcome
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.pages.pages import Pages, etag, etag_matches
from adsum.dialects.native.problems import STOPPING, WaitEnded
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.dialects.native.requests.disconnect_watch import DisconnectWatch
from adsum.dialects.native.requests.instance_filter import InstanceFilter
from adsum.registry import Registry

DEFAULT_CHANGES_LIMIT: Final = 100
"""How many recorded changes are answered unless told otherwise."""

LatestOutcomes = Callable[[Key], Mapping[str, Outcome]]
"""The last outcome of each check of an instance, by the check's name."""


class ReadOperations:
    """The operations that change nothing."""

    def __init__(self, registry: Registry, pages: Pages, outcomes: LatestOutcomes) -> None:
        self._registry = registry
        self._pages = pages
        self._outcomes = outcomes

    async def list_services(self, asked: ApiRequest) -> ApiReply:
        await self._wait(asked, None, lambda: self._registry.snapshot.revision)
        return (await self._pages.services()).reply(asked.if_none_match)

    async def read_service(self, asked: ApiRequest) -> ApiReply:
        name, narrow = asked.path["service"], InstanceFilter.from_query(asked.query)
        await self._wait(asked, frozenset({name}), lambda: self._registry.snapshot.service(name).revision, narrow)
        return self._pages.page(name, narrow).reply(asked.if_none_match)

    async def read_instance(self, asked: ApiRequest) -> ApiReply:
        snapshot = self._registry.snapshot
        listing = snapshot.find(asked.key)
        if listing is None:
            raise UnknownInstance(*asked.key)
        outcomes = self._outcomes(asked.key)
        return ApiReply(
            200, wire.encode(wire.InstanceDetail.from_listing(snapshot.epoch, snapshot.revision, listing, outcomes))
        )

    async def read_changes(self, asked: ApiRequest) -> ApiReply:
        service, id = asked.query.get("service"), asked.query.get("id")
        recorded = await self._registry.history(service, id, asked.query.get("limit", DEFAULT_CHANGES_LIMIT))
        snapshot = self._registry.snapshot
        changes = [wire.ChangeView.from_recorded(each) for each in recorded]
        return ApiReply(200, wire.encode(wire.ChangeList(snapshot.epoch, snapshot.revision, changes)))

    async def _wait(
        self,
        asked: ApiRequest,
        services: frozenset[str] | None,
        revision: Callable[[], int],
        narrow: InstanceFilter | None = None,
    ) -> None:
        """Wait, as long as the caller says, while there is nothing but what it says it knows.

        Raises `WaitEnded` if the node stops meanwhile.
        """
        wait = asked.query.get("wait", 0.0)
        if not wait or not self._knows(asked, revision(), narrow):
            return
        now = asyncio.get_running_loop().time
        deadline = now() + wait
        with (
            self._registry.watches.open(services) as watch,
            DisconnectWatch(asked.receive, watch.interrupt) as peer,
        ):
            while self._knows(asked, revision(), narrow) and not peer.disconnected:
                if self._registry.watches.is_ended:
                    raise WaitEnded(STOPPING)
                left = deadline - now()
                if left <= 0:
                    return
                await watch.changed(left)

    def _knows(self, asked: ApiRequest, revision: int, narrow: InstanceFilter | None) -> bool:
        """Whether the caller knows this revision. One from the future is another history's: it knows nothing."""
        snapshot, after = self._registry.snapshot, asked.query.get("after")
        if after is not None and not revision <= after <= snapshot.revision:
            return False
        tags = asked.if_none_match
        if tags is not None and not etag_matches(tags, etag(snapshot.epoch, revision, narrow)):
            return False
        return after is not None or tags is not None
