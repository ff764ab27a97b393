"""The state-of-the-world variant: a client is told all there is (clusters, listeners), or what it named and changed."""

from __future__ import annotations

from typing import Final

from adsum.dialects.xds.streams import responses
from adsum.dialects.xds.streams.request import Asked
from adsum.dialects.xds.streams.subscription import ALL, LEGACY, Heard, Sight, Subscription
from adsum.gateway.resources.resources import Kind, Resource

FULL: Final = LEGACY
"""Kinds of which a response holds all that the client wants: what it leaves out is removed."""


def hear(subscription: Subscription, asked: Asked, sight: Sight) -> Heard:
    """Take a request. One that answers an older response than the last says nothing: the last will be answered, too."""
    if asked.nonce and asked.nonce != subscription.nonce:
        return Heard("", (), ())
    rejection = asked.error if asked.nonce else ""
    if asked.nonce:
        subscription.answered(rejection)
    subscription.asked = True
    subscription.explicit = subscription.explicit or bool(asked.names)
    names = set(asked.names)
    every = ALL in names or (not subscription.explicit and subscription.kind in LEGACY)
    names.discard(ALL)
    added, dropped = names - subscription.names, subscription.names - names
    for name in dropped:
        subscription.drop(name)
    for name in added:
        subscription.add(name)
    if every and not subscription.wildcard:
        subscription.add_all(sight)
    elif subscription.wildcard and not every:
        subscription.drop_all()
    return Heard(rejection, added, dropped)


def say(subscription: Subscription, sight: Sight, number: int, revision: int, *, removing: bool) -> bytes | None:
    """The next response, if there is anything to say; what is gone is only left out when `removing`."""
    if not (subscription.owed or subscription.unanswered):
        return None
    lacks, missing, gone = subscription.due(sight)
    lost = gone if removing else missing
    if not (lost or subscription.unanswered or (lacks and not removing)):
        return None
    said: list[Resource] = [] if removing else lacks
    staying: list[Resource] = []
    if subscription.kind is Kind.ASSIGNMENT:
        said, lost = [*said, *map(responses.nobody, lost)], []
    elif subscription.kind in FULL:
        said = _all(subscription, sight)
        staying = [] if removing else list(subscription.leaving.values())
    elif not said:
        subscription.forget(lost)  # There is no word for it.
        return None
    nonce = subscription.next_nonce(number)
    subscription.say(nonce, revision, said, lost)
    return responses.sotw(subscription.kind, nonce, revision, [*said, *staying])


def _all(subscription: Subscription, sight: Sight) -> list[Resource]:
    """All that the client wants and there is."""
    names = {*subscription.names, *sight.names(subscription.kind)} if subscription.wildcard else subscription.names
    found = [sight.find(subscription.kind, name) for name in sorted(names)]
    return [each for each in found if each is not None]
