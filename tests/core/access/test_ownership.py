"""Ownership: who may change an instance that is listed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access.ownership import may_change, require_change
from adsum.core.access.principal import REGISTRY, Principal
from adsum.core.access.scopes import Right, Scopes
from adsum.core.errors import NotOwner
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from tests.core.access.principals import proven, scope_sets, short_names, unproven


def listing(owner: str, service: str = "orders") -> Listing:
    registration = Registration(Instance(service, "o1", "10.0.0.7", 8000))
    return Listing(registration, Provenance(Cause.REGISTERED, owner or "x"), owner=owner)


@pytest.mark.parametrize(
    ("principal", "owner", "may"),
    [
        (proven("write:orders"), "team-a", True),
        (proven("write:orders"), "team-b", False),
        (proven("write:orders"), "", True),
        (proven("write:*", name="team-b"), "team-a", False),
        (proven("read:orders"), "team-a", False),
        (proven("read:orders"), "", False),
        (proven(), "team-a", False),
        (proven("write:users"), "team-a", False),
        (proven("operate:orders"), "team-b", True),
        (proven("operate:users"), "team-b", False),
        (proven("admin"), "team-b", True),
        (proven("node"), "team-b", False),
        (unproven("write:*"), "team-a", False),
        (unproven("write:*"), "", True),
        (unproven("write:*"), "anonymous", False),
        (unproven("admin"), "team-a", True),
        (REGISTRY, "team-a", True),
    ],
)
def test_who_may_change_whose_instance(principal: Principal, owner: str, *, may: bool) -> None:
    assert may_change(principal, listing(owner)) is may
    if may:
        require_change(principal, listing(owner))
    else:
        with pytest.raises(NotOwner):
            require_change(principal, listing(owner))


@given(scope_sets, st.sampled_from(["", "team-a", "team-b"]), short_names, st.booleans())
def test_nobody_changes_what_it_may_not_even_write(scopes: Scopes, owner: str, service: str, is_proven: bool) -> None:
    principal = Principal("team-a", scopes, is_proven=is_proven)
    if may_change(principal, listing(owner, service)):
        assert scopes.can(Right.WRITE, service)
        assert scopes.can(Right.OPERATE, service) or owner in ("", principal.owner)


def test_a_refusal_reveals_neither_the_owner_nor_the_address() -> None:
    with pytest.raises(NotOwner, match="operate:orders") as refused:
        require_change(proven("write:orders"), listing("secret-team"))
    assert "secret-team" not in str(refused.value)
    assert "10.0.0.7" not in str(refused.value)
