"""The state-of-the-world variant: a client is told all there is (clusters, listeners), or what it named and changed."""

from __future__ import annotations

from typing import Final

from adsum.dialects.xds.streams import responses
from adsum.dialects.xds.streams.request import ResourceRequest
from adsum.dialects.xds.streams.subscription import (
    LEGACY_WILDCARD_KINDS,
    WILDCARD,
    ResourceLookup,
    Subscription,
    SubscriptionChange,
)
from adsum.gateway.resources.resources import Resource, ResourceKind

FULL_STATE_KINDS: Final = LEGACY_WILDCARD_KINDS
"""Kinds of which a response holds all that the client wants: what it leaves out is removed."""


def receive(subscription: Subscription, request: ResourceRequest, resources: ResourceLookup) -> SubscriptionChange:
    """Take a request. One that answers an older response than the last says nothing: the last will be answered, too."""
    if request.nonce and request.nonce != subscription.nonce:
        return SubscriptionChange("", (), ())
    rejection = request.error if request.nonce else ""
    if request.nonce:
        subscription.record_answer(rejection)
    subscription.is_started = True
    subscription.is_explicit = subscription.is_explicit or bool(request.names)
    names = set(request.names)
    every = WILDCARD in names or (not subscription.is_explicit and subscription.kind in LEGACY_WILDCARD_KINDS)
    names.discard(WILDCARD)
    added, dropped = names - subscription.names, subscription.names - names
    for name in dropped:
        subscription.remove(name)
    for name in added:
        subscription.add(name)
    if every and not subscription.wildcard:
        subscription.add_all(resources)
    elif subscription.wildcard and not every:
        subscription.remove_all()
    return SubscriptionChange(rejection, added, dropped)


def respond(
    subscription: Subscription, resources: ResourceLookup, publication: int, revision: int, *, removing: bool
) -> bytes | None:
    """The next response, if there is anything to say; what is gone is only left out when `removing`."""
    if not (subscription.pending or subscription.needs_response):
        return None
    lacks, missing, gone = subscription.due(resources)
    lost = gone if removing else missing
    if not (lost or subscription.needs_response or (lacks and not removing)):
        return None
    said: list[Resource] = [] if removing else lacks
    staying: list[Resource] = []
    if subscription.kind is ResourceKind.ASSIGNMENT:
        said, lost = [*said, *map(responses.empty_assignment, lost)], []
    elif subscription.kind in FULL_STATE_KINDS:
        said = _all(subscription, resources)
        staying = [] if removing else list(subscription.leaving.values())
    elif not said:
        subscription.forget(lost)  # There is no word for it.
        return None
    nonce = subscription.next_nonce(publication)
    subscription.record_sent(nonce, revision, said, lost)
    return responses.sotw_response(subscription.kind, nonce, revision, [*said, *staying])


def _all(subscription: Subscription, sight: ResourceLookup) -> list[Resource]:
    """All that the client wants and there is."""
    names = {*subscription.names, *sight.names(subscription.kind)} if subscription.wildcard else subscription.names
    found = [sight.find(subscription.kind, name) for name in sorted(names)]
    return [each for each in found if each is not None]
