"""The delta variant: a client is told what changed, and says what it had when it came."""

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

MAX_RESPONSE_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a delta response; the rest follows in the next response, after the ACK of this one."""


def receive(subscription: Subscription, request: ResourceRequest, resources: ResourceLookup) -> SubscriptionChange:
    """Take a request. What it subscribes to counts even if it answers an older response than the last."""
    rejection = ""
    if request.nonce and request.nonce == subscription.nonce:
        rejection = request.error
        subscription.record_answer(rejection)
    first, subscription.is_started = not subscription.is_started, True
    if first and not request.names and subscription.kind in LEGACY_WILDCARD_KINDS:
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
    if first and request.initial_versions:
        _has_already(subscription, request)
    return SubscriptionChange(rejection, [name for name in request.names if name != WILDCARD], request.unsubscribed)


def _has_already(subscription: Subscription, asked: ResourceRequest) -> None:
    for name, version in asked.initial_versions.items():
        if subscription.includes(name):
            subscription.versions[name] = version
            subscription.pending.add(name)


def respond(
    subscription: Subscription, resources: ResourceLookup, publication: int, revision: int, *, removing: bool
) -> bytes | None:
    """The next response, if there is anything to say; what is gone is only said when `removing`."""
    if not (subscription.pending or subscription.needs_response):
        return None
    lacks, missing, gone = subscription.due(resources)
    said, removed = lacks, missing
    if removing:
        said, removed = [], gone
    if subscription.kind is ResourceKind.ASSIGNMENT:
        said, removed = [*said, *map(responses.empty_assignment, removed)], []
    said = _fitting(said)
    if not (said or removed or subscription.needs_response):
        return None
    nonce = subscription.next_nonce(publication)
    subscription.record_sent(nonce, revision, said, removed)
    return responses.delta_response(subscription.kind, nonce, revision, said, removed)


def _fitting(resources: list[Resource]) -> list[Resource]:
    """As many as fit in one response, at least one."""
    size = 0
    for count, each in enumerate(resources):
        size += len(each.delta)
        if size > MAX_RESPONSE_BYTES and count:
            return resources[:count]
    return resources
