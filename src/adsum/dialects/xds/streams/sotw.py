"""The state-of-the-world variant of xDS: a response has all clusters or listeners, or named resources that changed."""

from __future__ import annotations

from typing import Final

from adsum.dialects.xds.streams import responses
from adsum.dialects.xds.streams.request import ResourceRequest
from adsum.dialects.xds.streams.resource_view import ResourceView
from adsum.dialects.xds.streams.subscription import (
    LEGACY_WILDCARD_KINDS,
    WILDCARD,
    Subscription,
    SubscriptionChange,
)
from adsum.gateway.resources.resources import Resource, ResourceKind

FULL_STATE_KINDS: Final = LEGACY_WILDCARD_KINDS
"""Kinds whose responses have all resources that the client wants: the client removes those that a response omits."""


def receive(subscription: Subscription, request: ResourceRequest, resources: ResourceView) -> SubscriptionChange:
    """Applies a request. An answer to an older response changes nothing: the client will answer the last one, too."""
    if request.nonce and request.nonce != subscription.nonce:
        return SubscriptionChange("", (), ())
    rejection = request.error if request.nonce else ""
    if request.nonce:
        subscription.record_answer(rejection)
    subscription.is_started = True
    subscription.is_explicit = subscription.is_explicit or bool(request.names)
    names = set(request.names)
    wants_all = WILDCARD in names or (not subscription.is_explicit and subscription.kind in LEGACY_WILDCARD_KINDS)
    names.discard(WILDCARD)
    added, removed = names - subscription.names, subscription.names - names
    for name in removed:
        subscription.remove(name)
    for name in added:
        subscription.add(name)
    if wants_all and not subscription.wildcard:
        subscription.add_all(resources)
    elif subscription.wildcard and not wants_all:
        subscription.remove_all()
    return SubscriptionChange(rejection, added, removed)


def respond(
    subscription: Subscription, resources: ResourceView, publication: int, revision: int, *, removing: bool
) -> bytes | None:
    """Returns the next response; None if there is nothing to send. It omits what is gone only if `removing`."""
    if not (subscription.pending or subscription.needs_response):
        return None
    due, missing, gone = subscription.due(resources)
    removed = gone if removing else missing
    if not (removed or subscription.needs_response or (due and not removing)):
        return None
    sent: list[Resource] = [] if removing else due
    leaving: list[Resource] = []
    if subscription.kind is ResourceKind.ASSIGNMENT:
        sent, removed = [*sent, *map(responses.empty_assignment, removed)], []
    elif subscription.kind in FULL_STATE_KINDS:
        sent = _all(subscription, resources)
        leaving = [] if removing else list(subscription.leaving.values())
    elif not sent:
        subscription.forget(removed)  # The protocol has no message for the removal of these kinds.
        return None
    nonce = subscription.next_nonce(publication)
    subscription.record_sent(nonce, revision, sent, removed)
    return responses.sotw_response(subscription.kind, nonce, revision, [*sent, *leaving])


def _all(subscription: Subscription, resources: ResourceView) -> list[Resource]:
    """Returns every resource that exists and that the client wants."""
    kind = subscription.kind
    names = {*subscription.names, *resources.names(kind)} if subscription.wildcard else subscription.names
    found = [resources.find(kind, name) for name in sorted(names)]
    return [resource for resource in found if resource is not None]
