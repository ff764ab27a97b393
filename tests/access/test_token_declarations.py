"""Declarations about tokens and invites."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from adsum.access import token_declarations
from adsum.access.token_declarations import (
    EXPIRED_INVITE_KEPT,
    EXPIRED_TOKEN_KEPT,
    create_token,
    find_invite,
    find_token,
    invite_key,
    join,
    mark_used,
    remove_expired,
    rotate_token,
    token_key,
)
from adsum.core.access.invites import Invite
from adsum.core.access.scopes import parse_scopes
from adsum.core.access.tokens import Token, TokenRole, TokenSecret, hash_secret
from adsum.core.catalog import declarations
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import DocumentKind
from adsum.core.catalog.draft import Draft
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.errors import Invalid, NameTaken, Unauthenticated, UnknownDocument
from adsum.wire.tokens import encode_invite
from tests.support.tokens import make_token

ANN = Caller("ann", 100.0)
SECRET = "s" * 43
READ = parse_scopes("scopes", ["read:*"])


def _invite(id: str = "0" * 16, uses_left: int | None = 1, expires: float = 200.0) -> Invite:
    return Invite(id, TokenRole.NODE, READ, (TokenSecret(hash_secret(SECRET)),), expires, uses_left)


def _after(*requests: Declaration, start: Snapshot = EMPTY_SNAPSHOT) -> Snapshot:
    for declaration in requests:
        start = start.apply(Batch(start.revision + 1, [], declaration(start)))
    return start


def _declare_invite(invite: Invite) -> Declaration:
    return declarations.declare(invite_key(invite.id), encode_invite(invite), ANN)


def _tokens(snapshot: Snapshot) -> list[str]:
    return [document.key.name for document in snapshot.documents.of_kind(DocumentKind.TOKEN)]


@given(st.integers(0, 5), st.integers(0, 8), st.booleans())
def test_an_invite_joins_as_many_hosts_as_it_has_uses_also_within_one_batch(
    uses: int, hosts: int, together: bool
) -> None:
    start = _after(_declare_invite(_invite(uses_left=uses)))
    draft, snapshot, joined = Draft(start), start, 0
    for n in range(hosts):
        declaration = join("0" * 16, SECRET, make_token(f"host-{n}")[0], ANN)
        try:
            edits = declaration(draft if together else snapshot)
        except Unauthenticated:
            continue
        joined += 1
        draft.add(edits)
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, [], edits))
    assert joined == min(uses, hosts) == len(_tokens(snapshot))
    left = find_invite(snapshot.documents, "0" * 16)
    assert (left.uses_left if left is not None else 0) == uses - joined


def test_an_unlimited_invite_is_not_changed_by_a_join() -> None:
    start = _after(_declare_invite(_invite(uses_left=None)))
    edits = join("0" * 16, SECRET, make_token("host")[0], ANN)(start)
    assert [str(edit.key) for edit in edits] == ["token host"]


def test_a_joiner_gets_the_role_and_the_scopes_of_the_invite_and_the_invite_ends_first() -> None:
    start = _after(_declare_invite(_invite()))
    asked = replace(make_token("host", "admin")[0], role=TokenRole.PLAIN)
    edits = join("0" * 16, SECRET, asked, ANN)(start)
    assert [str(edit.key) for edit in edits] == ["invite " + "0" * 16, "token host"]
    token = find_token(_after(join("0" * 16, SECRET, asked, ANN), start=start).documents, "host")
    assert (token.role, token.scopes) == (TokenRole.NODE, READ)


@pytest.mark.parametrize(
    ("id", "secret", "at"), [("1" * 16, SECRET, 100.0), ("0" * 16, "x" * 43, 100.0), ("0" * 16, SECRET, 200.0)]
)
def test_a_wrong_or_expired_invite_makes_no_token(id: str, secret: str, at: float) -> None:
    start = _after(_declare_invite(_invite()))
    with pytest.raises(Unauthenticated):
        join(id, secret, make_token("host")[0], structs.replace(ANN, at=at))(start)


def test_a_joiner_does_not_get_the_name_of_an_expired_token_which_owns_instances() -> None:
    expired = make_token("web", "write:*", expires=150.0)[0]
    start = _after(create_token(expired, ANN, ""), _declare_invite(_invite()))
    late, other = structs.replace(ANN, at=160.0), replace(make_token("web")[0], id="f" * 16)
    with pytest.raises(NameTaken, match="adsum token revoke web"):
        join("0" * 16, SECRET, other, late)(start)
    assert create_token(other, late, "")(start), "whoever manages tokens decides who has the name"


def test_an_invite_that_a_later_version_wrote_is_not_accepted() -> None:
    start = _after(declarations.declare(invite_key("0" * 16), b'{"role":"moon"}', ANN))
    with pytest.raises(Unauthenticated):
        join("0" * 16, SECRET, make_token("host")[0], ANN)(start)


def test_deciding_a_creation_again_changes_nothing() -> None:
    token = make_token("web", "read:*")[0]
    start = _after(create_token(token, ANN, ""))
    assert create_token(token, ANN, "")(start) == []
    with pytest.raises(NameTaken, match="plain token named web"):
        create_token(replace(token, id="f" * 16), ANN, "")(start)


def test_a_rotation_needs_a_token_with_a_secret() -> None:
    with pytest.raises(UnknownDocument):
        rotate_token("web", SECRET, 0.0, ANN)(EMPTY_SNAPSHOT)
    with pytest.raises(Invalid, match="nobody sends"):
        rotate_token("anonymous", SECRET, 0.0, ANN)
    with pytest.raises(Invalid, match="remove security/admin-token"):
        rotate_token("admin@n1", SECRET, 0.0, ANN)
    start = _after(create_token(make_token("web", "read:*", expires=200.0)[0], ANN, ""))
    assert rotate_token("web", SECRET, 0.0, ANN)(start)
    with pytest.raises(Invalid, match="create a new one"):
        rotate_token("web", SECRET, 0.0, structs.replace(ANN, at=200.0))(start)


def test_a_day_of_use_is_written_once_without_history_and_keeps_the_author() -> None:
    tokens = [make_token(name, "read:*")[0] for name in ("a", "b")]
    start = _after(*(create_token(token, ANN, "new") for token in tokens))
    used = mark_used({tokens[0].id: 86_400.0, "f" * 16: 86_400.0})
    (edit,) = used(start)
    assert (str(edit.key), edit.is_recorded, edit.provenance.actor) == ("token a", False, "ann")
    after = _after(used, start=start)
    assert find_token(after.documents, "a") == replace(tokens[0], used=86_400.0)
    assert used(after) == mark_used({tokens[0].id: 0.0})(after) == []


def test_tokens_and_invites_are_removed_some_time_after_they_expire() -> None:
    start = _after(
        create_token(make_token("lasting", "read:*")[0], ANN, ""),
        create_token(make_token("short", "read:*", expires=200.0)[0], ANN, ""),
        create_token(make_token("anonymous", "read:*", expires=200.0)[0], ANN, ""),
        _declare_invite(_invite()),
    )

    def removed(now: float) -> list[str]:
        return [str(edit.key) for edit in remove_expired(now)(start)]

    assert removed(200.0 + EXPIRED_INVITE_KEPT - 1) == []
    assert removed(200.0 + EXPIRED_INVITE_KEPT) == ["invite " + "0" * 16]
    assert removed(200.0 + EXPIRED_TOKEN_KEPT) == ["token short", "invite " + "0" * 16]
    after = _after(remove_expired(1e9), start=start)
    assert _tokens(after) == ["anonymous", "lasting"], "the default scopes of callers without a proof don't come back"
    assert remove_expired(1e9)(after) == []
    (edit, _) = remove_expired(1e9)(start)
    assert (edit.provenance.actor, edit.provenance.reason) == ("registry", token_declarations.EXPIRED)


def test_unreadable_tokens_are_neither_marked_nor_removed() -> None:
    start = _after(declarations.declare(token_key("later"), b"{}", ANN))
    assert mark_used({"": 5.0})(start) == remove_expired(1e12)(start) == []
    with pytest.raises(Invalid, match="revoke it, or upgrade"):
        find_token(start.documents, "later")
    with pytest.raises(NameTaken, match="a token named later"):
        create_token(make_token("later")[0], ANN, "")(start)


def test_records_are_of_the_declared_kinds() -> None:
    token = Token("a", "0" * 16, READ)
    assert create_token(token, ANN, "")(EMPTY_SNAPSHOT)[0].key.kind is DocumentKind.TOKEN
