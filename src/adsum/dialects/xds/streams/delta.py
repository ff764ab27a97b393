"""The delta variant of xDS: responses have only what changed, and a returning client sends the versions that it has."""

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

MAX_RESPONSE_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a delta response; the rest follows in the next response, after the ACK of this one."""


def receive(subscription: Subscription, request: ResourceRequest, resources: ResourceView) -> SubscriptionChange:
    """Applies a request. Its subscriptions count even if it answers an older response than the last."""
    rejection = ""
    if request.nonce and request.nonce == subscription.nonce:
        rejection = request.error
        subscription.record_answer(rejection)
    is_first, subscription.is_started = not subscription.is_started, True
    if is_first and not request.names and subscription.kind in LEGACY_WILDCARD_KINDS:
        subscription.add_all(resources)
    for name in request.unsubscribed:
        if name == WILDCARD:
            subscription.remove_all()
        else:
            subscription.remove(name)
    for name in request.names:
        if name == WILDCARD:
            subscription.add_all(resources)
        else:
            subscription.add(name)
    if is_first and request.initial_versions:
        _record_initial_versions(subscription, request)
    return SubscriptionChange(rejection, [name for name in request.names if name != WILDCARD], request.unsubscribed)


def _record_initial_versions(subscription: Subscription, request: ResourceRequest) -> None:
    for name, version in request.initial_versions.items():
        if subscription.includes(name):
            subscription.versions[name] = version
            subscription.pending.add(name)


def respond(
    subscription: Subscription, resources: ResourceView, publication: int, revision: int, *, removing: bool
) -> bytes | None:
    """Returns the next response; None if there is nothing to send. It removes resources only if `removing`."""
    if not (subscription.pending or subscription.needs_response):
        return None
    due, missing, gone = subscription.due(resources)
    sent, removed = due, missing
    if removing:
        sent, removed = [], gone
    if subscription.kind is ResourceKind.ASSIGNMENT:
        sent, removed = [*sent, *map(responses.empty_assignment, removed)], []
    sent = _fitting(sent)
    if not (sent or removed or subscription.needs_response):
        return None
    nonce = subscription.next_nonce(publication)
    subscription.record_sent(nonce, revision, sent, removed)
    return responses.delta_response(subscription.kind, nonce, revision, sent, removed)


def _fitting(resources: list[Resource]) -> list[Resource]:
    """Returns the first resources that fit into one response, at least one."""
    size = 0
    for count, resource in enumerate(resources):
        size += len(resource.delta)
        if size > MAX_RESPONSE_BYTES and count:
            return resources[:count]
    return resources
