"""Reads of services, instances and history, with conditional requests and long polls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.core.access.ownership import may_change
from adsum.core.catalog.changes import MAX_HISTORY
from adsum.core.errors import UnknownInstance
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.pages.pages import Pages, PageSelection, etag, etag_matches
from adsum.dialects.native.ports import LatestOutcomes
from adsum.dialects.native.problems import STOPPING, WaitEnded
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.dialects.native.requests.disconnect_watch import DisconnectWatch
from adsum.dialects.native.requests.instance_filter import InstanceFilter
from adsum.dialects.native.requests.rights_watch import RightsWatch
from adsum.registry import Registry

DEFAULT_CHANGES_LIMIT: Final = 100
"""Recorded changes in a response, by default."""


class ReadOperations:
    """The operations that read the catalog."""

    def __init__(self, registry: Registry, pages: Pages, latest_outcomes: LatestOutcomes) -> None:
        self._registry = registry
        self._pages = pages
        self._latest_outcomes = latest_outcomes

    async def list_services(self, request: ApiRequest) -> ApiReply:
        visible = request.principal.scopes.visible
        await self._wait(request, None, lambda: self._registry.snapshot.revision, None if visible.is_all else visible)
        return (await self._pages.services(visible)).reply(request.if_none_match)

    async def read_service(self, request: ApiRequest) -> ApiReply:
        name, instance_filter = request.path["service"], InstanceFilter.from_query(request.query)
        await self._wait(
            request, frozenset({name}), lambda: self._registry.snapshot.service(name).revision, instance_filter
        )
        return self._pages.page(name, instance_filter).reply(request.if_none_match)

    async def read_instance(self, request: ApiRequest) -> ApiReply:
        snapshot = self._registry.snapshot
        listing = snapshot.find(request.key)
        if listing is None:
            raise UnknownInstance(*request.key)
        outcomes = self._latest_outcomes(request.key)
        # On an open registry everybody may change everything, and yet nobody has proved to be the owner.
        shows_headers = request.principal.is_proven and may_change(request.principal, listing)
        detail = wire.InstanceDetail.from_listing(
            snapshot.epoch, snapshot.revision, listing, outcomes, shows_headers=shows_headers
        )
        return ApiReply(200, wire.encode(detail))

    async def read_changes(self, request: ApiRequest) -> ApiReply:
        query = request.query
        service, limit = query.get("service"), query.get("limit", DEFAULT_CHANGES_LIMIT)
        visible = request.principal.scopes.visible
        is_limited = service is None and not visible.is_all
        recorded = await self._registry.history(service, query.get("id"), MAX_HISTORY if is_limited else limit)
        if is_limited:
            recorded = [change for change in recorded if visible.includes(change.key.service)][:limit]
        snapshot = self._registry.snapshot
        changes = [wire.ChangeView.from_recorded(change) for change in recorded]
        return ApiReply(200, wire.encode(wire.ChangeList(snapshot.epoch, snapshot.revision, changes)))

    async def _wait(
        self,
        request: ApiRequest,
        services: frozenset[str] | None,
        revision: Callable[[], int],
        selection: PageSelection | None = None,
    ) -> None:
        """Waits while the caller has the current revision, at most the `wait` of the request.

        Raises `WaitEnded` if the node stops meanwhile, and `Unauthenticated` if the rights of the caller end.
        """
        wait = request.query.get("wait", 0.0)
        if not wait or not self._is_current(request, revision(), selection):
            return
        now = asyncio.get_running_loop().time
        deadline = now() + wait
        with (
            self._registry.watches.open(services) as watch,
            DisconnectWatch(request.receive, watch.interrupt) as peer,
            RightsWatch(request.access, request.principal, watch.interrupt) as rights,
        ):
            while self._is_current(request, revision(), selection) and not peer.disconnected:
                rights.require()
                if self._registry.watches.is_ended:
                    raise WaitEnded(STOPPING)
                left = deadline - now()
                if left <= 0:
                    return
                await watch.changed(left)

    def _is_current(self, request: ApiRequest, revision: int, selection: PageSelection | None) -> bool:
        """Returns whether the caller has this revision, by `after` or If-None-Match.

        An `after` past the newest revision belongs to another history, so the caller has nothing of this one.
        """
        snapshot, after = self._registry.snapshot, request.query.get("after")
        if after is not None and not revision <= after <= snapshot.revision:
            return False
        tags = request.if_none_match
        if tags is not None and not etag_matches(tags, etag(snapshot.epoch, revision, selection)):
            return False
        return after is not None or tags is not None
