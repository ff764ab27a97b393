"""The delta variant: a client is told what changed, and says what it had when it came."""

from __future__ import annotations

from adsum.dialects.xds.bounds import MAX_RESPONSE
from adsum.dialects.xds.streams import responses
from adsum.dialects.xds.streams.request import Asked
from adsum.dialects.xds.streams.subscription import ALL, LEGACY, Heard, Sight, Subscription
from adsum.gateway.resources.resources import Kind, Resource


def hear(subscription: Subscription, asked: Asked, sight: Sight) -> Heard:
    """Take a request. What it subscribes to counts even if it answers an older response than the last."""
    rejection = ""
    if asked.nonce and asked.nonce == subscription.nonce:
        rejection = asked.error
        subscription.answered(rejection)
    first, subscription.asked = not subscription.asked, True
    if first and not asked.names and subscription.kind in LEGACY:
        subscription.add_all(sight)
    for name in asked.dropped:
        if name == ALL:
            subscription.drop_all()
        else:
            subscription.drop(name)
    for name in asked.names:
        if name == ALL:
            subscription.add_all(sight)
        else:
            subscription.add(name)
    if first and asked.brought:
        _has_already(subscription, asked)
    return Heard(rejection, [name for name in asked.names if name != ALL], asked.dropped)


def _has_already(subscription: Subscription, asked: Asked) -> None:
    for name, version in asked.brought.items():
        if subscription.covers(name):
            subscription.has[name] = version
            subscription.owed.add(name)


def say(subscription: Subscription, sight: Sight, number: int, revision: int, *, removing: bool) -> bytes | None:
    """The next response, if there is anything to say; what is gone is only said when `removing`."""
    if not (subscription.owed or subscription.unanswered):
        return None
    lacks, missing, gone = subscription.due(sight)
    said, removed = lacks, missing
    if removing:
        said, removed = [], gone
    if subscription.kind is Kind.ASSIGNMENT:
        said, removed = [*said, *map(responses.nobody, removed)], []
    said = _fitting(said)
    if not (said or removed or subscription.unanswered):
        return None
    nonce = subscription.next_nonce(number)
    subscription.say(nonce, revision, said, removed)
    return responses.delta(subscription.kind, nonce, revision, said, removed)


def _fitting(resources: list[Resource]) -> list[Resource]:
    """As many as fit in one response, at least one."""
    size = 0
    for count, each in enumerate(resources):
        size += len(each.delta)
        if size > MAX_RESPONSE and count:
            return resources[:count]
    return resources
