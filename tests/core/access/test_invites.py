"""Invites: how often and for how long they may be used, and what a refusal reveals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adsum.core.access.invites import Invite, verify_invite
from adsum.core.access.tokens import TokenRole, TokenSecret, hash_secret
from adsum.core.errors import Unauthenticated
from tests.core.access.principals import ID, NOW, OTHER_SECRET, SECRET, scopes


def invite(uses_left: int | None = None, expires: float = NOW + 60.0) -> Invite:
    return Invite(ID, TokenRole.CLIENT, scopes("read:*"), [TokenSecret(hash_secret(SECRET))], expires, uses_left)


def test_an_invite_is_accepted_with_its_secret_until_it_expires() -> None:
    known = invite(uses_left=1)
    assert verify_invite(known, SECRET, NOW) is known
    assert verify_invite(known, SECRET, NOW + 59.9) is known


def test_every_refusal_has_the_same_message() -> None:
    ended = replace(invite(), secrets=[TokenSecret(hash_secret(SECRET), NOW)])
    messages = set()
    for known, secret in (
        (None, SECRET),
        (invite(), OTHER_SECRET),
        (invite(expires=NOW), SECRET),
        (invite(uses_left=0), SECRET),
        (ended, SECRET),
    ):
        with pytest.raises(Unauthenticated) as refused:
            verify_invite(known, secret, NOW)
        messages.add(str(refused.value))
    assert len(messages) == 1


def test_an_invite_for_one_host_is_used_up_by_the_first() -> None:
    assert invite(uses_left=1).used() is None


def test_an_invite_for_several_hosts_counts_down() -> None:
    left = invite(uses_left=2).used()
    assert left is not None
    assert left.uses_left == 1
    assert left.used() is None


def test_an_invite_without_a_number_stays() -> None:
    known = invite()
    assert known.used() is known


def test_an_invite_that_was_used_up_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        invite(uses_left=0).used()


def test_no_repr_holds_the_secret() -> None:
    assert SECRET not in repr(invite())
