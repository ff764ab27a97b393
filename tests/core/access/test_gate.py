"""The gate: every action for every kind of principal, and what its errors reveal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access import gate
from adsum.core.access.actions import ACCESS_RULES, Action, Subject
from adsum.core.access.gate import HIDDEN_READS, GateVerdict
from adsum.core.access.principal import REGISTRY, Principal
from adsum.core.access.scopes import RIGHTS_OVER_SERVICES, Right, Scopes
from adsum.core.errors import AdsumError, Forbidden, InvisibleService, Unauthenticated
from tests.core.access.principals import attempt, narrow_scope_sets, proven, scope_sets, short_names, unproven

ALLOWED, DENIED, INVISIBLE = GateVerdict.ALLOWED, GateVerdict.DENIED, GateVerdict.INVISIBLE

PRINCIPALS = {
    "nothing": proven(),
    "read another": proven("read:users"),
    "read": proven("read:orders"),
    "write": proven("write:orders"),
    "operate": proven("operate:orders"),
    "read all": proven("read:*"),
    "write all": proven("write:*"),
    "operate all": proven("operate:*"),
    "node": proven("node"),
    "admin": proven("admin"),
}
"""Every kind of principal that proved who it is, about the service `orders`."""

# The principals that may do an action on `orders`. All others are refused.
READERS = {"read", "write", "operate", "read all", "write all", "operate all", "admin"}
WRITERS = {"write", "operate", "write all", "operate all", "admin"}
OPERATORS = {"operate", "operate all", "admin"}
SEEING = READERS | {"read another"}
"""May read at least one service."""
READERS_OF_ALL = {"read all", "write all", "operate all", "admin"}

MAY = {
    Action.READ: READERS,
    Action.LIST: READERS,
    Action.WATCH: READERS,
    Action.READ_HISTORY: READERS,
    Action.REGISTER: WRITERS,
    Action.RENEW: WRITERS,
    Action.DEREGISTER: WRITERS,
    Action.OVERRIDE: WRITERS,
    Action.RESUME: WRITERS,
    Action.FORGET: OPERATORS,
    Action.READ_INTENT: READERS,
    Action.DECLARE: OPERATORS,
    Action.REPLACE_INTENT: {"operate all", "admin"},
    Action.READ_EDITS: READERS_OF_ALL,
    Action.ACKNOWLEDGE: READERS,
    Action.REPORT: READERS,
    Action.PROBE: set(PRINCIPALS),
    Action.READ_NODE: READERS_OF_ALL,
    Action.FORWARD: {"node", "admin"},
    Action.MANAGE_TOKENS: {"admin"},
    Action.JOIN: set(PRINCIPALS),
    Action.IDENTIFY: set(PRINCIPALS),
    Action.CERTIFY: set(PRINCIPALS),
}
"""Who may do what on `orders`. An action without a line here fails the test."""


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("kind", PRINCIPALS)
def test_who_may_do_what(action: Action, kind: str) -> None:
    principal = PRINCIPALS[kind]
    verdict = gate.decide(principal, action, ["orders"])
    assert (verdict is ALLOWED) is (kind in MAY[action]), verdict
    if verdict is ALLOWED:
        gate.require(principal, action, ["orders"])
        return
    error = _refusal(principal, action, "orders")
    hides = verdict is INVISIBLE and action in HIDDEN_READS
    assert type(error) is (InvisibleService if hides else Forbidden)
    about_services = ACCESS_RULES[action].subject not in (Subject.REGISTRY, Subject.CALLER, Subject.NOTHING)
    assert (verdict is INVISIBLE) is (about_services and kind not in READERS)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("kind", PRINCIPALS)
def test_a_caller_that_proved_nothing_may_do_the_same_by_its_scopes_and_is_else_asked_for_a_token(
    action: Action, kind: str
) -> None:
    principal = unproven(*PRINCIPALS[kind].scopes.texts())
    if action is not Action.CERTIFY and kind in MAY[action]:
        gate.require(principal, action, ["orders"])
    else:
        with pytest.raises(Unauthenticated) as refused:
            gate.require(principal, action, ["orders"])
        assert refused.value.reason == "no-credentials"


@pytest.mark.parametrize("action", Action)
def test_the_registry_itself_may_do_everything_but_prove_who_it_is(action: Action) -> None:
    assert gate.decide(REGISTRY, action, ["orders"]) is (DENIED if action is Action.CERTIFY else ALLOWED)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("kind", PRINCIPALS)
def test_a_request_without_a_service_needs_the_right_over_at_least_one(action: Action, kind: str) -> None:
    subject, right = ACCESS_RULES[action]
    principal = PRINCIPALS[kind]
    if subject in (Subject.REGISTRY, Subject.CALLER, Subject.NOTHING):
        assert gate.decide(principal, action) is gate.decide(principal, action, ["orders"])
    else:
        assert right is not None
        has_some = kind in {Right.READ: SEEING, Right.WRITE: WRITERS, Right.OPERATE: OPERATORS}[right]
        assert gate.decide(principal, action) is (ALLOWED if has_some else DENIED)


@given(narrow_scope_sets, st.sampled_from(list(Action)), st.lists(short_names, min_size=1, max_size=4))
def test_a_request_is_allowed_exactly_if_it_is_for_each_service_alone(
    found: Scopes, action: Action, services: list[str]
) -> None:
    principal = Principal("x", found)
    verdicts = {gate.decide(principal, action, [service]) for service in services}
    verdict = gate.decide(principal, action, services)
    assert (verdict is ALLOWED) is (verdicts == {ALLOWED})
    assert verdict in verdicts
    assert gate.decide(principal, action, iter(services)) is verdict


@given(scope_sets, st.sampled_from(list(Action)), st.lists(short_names, max_size=3), st.booleans())
def test_a_refusal_names_nothing_but_what_the_request_named(
    found: Scopes, action: Action, services: list[str], is_proven: bool
) -> None:
    principal = Principal("caller", found, is_proven=is_proven)
    error = attempt(lambda: gate.require(principal, action, services))
    if error is None:
        assert gate.decide(principal, action, services) is ALLOWED
        return
    # The gate knows no catalog, so it can only reveal its arguments: what it names was in the request.
    assert isinstance(error, Forbidden | InvisibleService | Unauthenticated)
    assert isinstance(error, Unauthenticated) is not is_proven
    if isinstance(error, InvisibleService):
        assert error.service in services
        assert not found.can(Right.READ, error.service)


@given(scope_sets, scope_sets, st.sampled_from(list(Action)), st.lists(short_names, max_size=3))
def test_more_scopes_never_forbid_what_fewer_allow(
    one: Scopes, other: Scopes, action: Action, services: list[str]
) -> None:
    both = Scopes((*one.scopes, *other.scopes))
    if gate.decide(Principal("x", one), action, services) is ALLOWED:
        assert gate.decide(Principal("x", both), action, services) is ALLOWED


def test_every_action_has_a_rule_with_a_right_where_it_needs_one() -> None:
    assert ACCESS_RULES.keys() == set(Action) == MAY.keys()
    for action, (subject, right) in ACCESS_RULES.items():
        assert (right is None) is (subject in (Subject.NOTHING, Subject.CALLER)), action
        if subject in (Subject.SERVICES, Subject.OWN_INSTANCES, Subject.VISIBLE):
            assert right in RIGHTS_OVER_SERVICES, action
    for action in HIDDEN_READS:
        assert ACCESS_RULES[action].right is Right.READ


@pytest.mark.parametrize(
    ("action", "services", "message"),
    [
        (Action.REGISTER, ["orders"], "team-a may not do this: it needs the scope write:orders"),
        (Action.DECLARE, ["a", "b"], "team-a may not do this: it needs the right operate over every service that"),
        (Action.DECLARE, [], "team-a may not do this: it needs the right operate over at least one service"),
        (Action.READ_NODE, [], "team-a may not do this: it needs the scope read:[*]"),
        (Action.MANAGE_TOKENS, [], "team-a may not do this: it needs the scope admin"),
        (Action.READ, ["orders"], "team-a sees no service 'orders': reading it needs the scope read:orders"),
    ],
)
def test_a_refusal_says_which_scope_the_request_needs(action: Action, services: list[str], message: str) -> None:
    with pytest.raises(AdsumError, match=message):
        gate.require(proven(), action, services)


def _refusal(principal: Principal, action: Action, service: str) -> AdsumError:
    with pytest.raises(AdsumError) as refused:
        gate.require(principal, action, [service])
    return refused.value
