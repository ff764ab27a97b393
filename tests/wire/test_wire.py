from __future__ import annotations

import json
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adsum import wire
from adsum.core import model
from adsum.core.errors import Invalid
from adsum.core.identity import holder_digest
from adsum.core.model import Check, CheckKind, Endpoint, Listing, Registration
from tests.support import strategies

T = TypeVar("T")

KINDS: tuple[type[Any], ...] = (
    wire.RegistrationBody,
    wire.RenewBody,
    wire.OverrideBody,
    wire.AcknowledgementBody,
    wire.ServiceView,
    wire.ServiceChange,
    wire.InstanceDetail,
    wire.ChangeList,
    wire.WatchOpened,
    wire.Problem,
)
"""Bodies that the node decodes from a client, or a client from the node."""

MINIMAL = {"port": 8000}
CHECK = {"name": "web", "kind": "http"}


def refusal(body: bytes | str | object, kind: type[Any] = wire.RegistrationBody) -> Invalid:
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    with pytest.raises(Invalid) as refused:
        wire.decode(text, kind)
    return refused.value


def attempt(body: bytes | str, kind: type[T]) -> T | Invalid:
    """Returns the decoded body or the error. Any error other than `Invalid` fails the test."""
    try:
        return wire.decode(body, kind)
    except Invalid as refused:
        return refused


def transferred(body: wire.RegistrationBody) -> wire.RegistrationBody:
    """Returns the body as its receiver decodes it."""
    return wire.decode(wire.encode(body), wire.RegistrationBody)


@given(strategies.registrations)
@settings(max_examples=60)
def test_a_registration_arrives_as_it_was_sent(registration: Registration) -> None:
    body = transferred(wire.RegistrationBody.from_registration(registration))
    assert body.to_registration(*registration.key, peer="192.0.2.1") == registration


@given(strategies.listings())
@settings(max_examples=60)
def test_a_consumer_gets_the_instance_as_it_was_declared(listing: Listing) -> None:
    view = wire.decode(wire.encode(wire.InstanceView.from_listing(listing)), wire.InstanceView)
    assert view.to_endpoint(listing.key.service) == Endpoint(
        listing.instance, listing.status, holder_digest(listing.registration.holder)
    )
    assert (view.cause, view.actor, view.reason) == (
        listing.provenance.cause,
        listing.provenance.actor,
        listing.provenance.reason,
    )


def test_equal_values_of_instances_are_kept_once() -> None:
    body = {**MINIMAL, "zone": "eu-1", "tags": ["v2"], "metadata": {"version": "2"}, "ttl": 9.5, "checks": [CHECK]}
    one, two = (
        wire.decode(json.dumps(body), wire.RegistrationBody).to_registration("orders", id, "192.0.2.1")
        for id in ("o1", "o2")
    )
    for part in ("service", "address", "zone", "tags", "metadata"):
        assert getattr(one.instance, part) is getattr(two.instance, part)
    assert one.ttl is two.ttl
    assert one.checks is two.checks
    assert model.freeze_statuses({"web": model.Status.PASSING}) is model.freeze_statuses({"web": model.Status.PASSING})


def test_missing_fields_have_their_default() -> None:
    body = wire.decode(b'{"port":8000}', wire.RegistrationBody)
    assert wire.encode(body) == b'{"port":8000}'
    registration = body.to_registration("orders", "o1", peer="192.0.2.1")
    assert registration == Registration(replace(registration.instance, address="192.0.2.1"))
    assert wire.CheckBody("web", CheckKind.TCP).to_check() == Check("web", CheckKind.TCP)


def test_a_null_ttl_means_no_lease() -> None:
    assert wire.decode(b'{"port":1,"ttl":null}', wire.RegistrationBody).to_registration("s", "i", "::1").ttl is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "port"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": "8000"}, "port"),
        ({"port": 8000.5}, "port"),
        ({"port": True}, "port"),
        ({"port": None}, "port"),
        ({**MINIMAL, "ports": 1}, "ports"),
        ({**MINIMAL, "address": ""}, "address"),
        ({**MINIMAL, "weight": 1001}, "weight"),
        ({**MINIMAL, "ttl": 0.5}, "ttl"),
        ({**MINIMAL, "ttl": "15"}, "ttl"),
        ({**MINIMAL, "tags": ["a", 1]}, "tags[1]"),
        ({**MINIMAL, "tags": "a"}, "tags"),
        ({**MINIMAL, "metadata": {"a": 1}}, "metadata[...]"),
        ({**MINIMAL, "metadata": []}, "metadata"),
        ({**MINIMAL, "checks": [CHECK, {**CHECK, "interval": 0}]}, "checks[1].interval"),
        ({**MINIMAL, "checks": [{"name": "web"}]}, "checks[0].kind"),
        ({**MINIMAL, "checks": [{**CHECK, "kind": "icmp"}]}, "checks[0].kind"),
        ({**MINIMAL, "checks": [{**CHECK, "intervall": 5}]}, "checks[0].intervall"),
        ({**MINIMAL, "checks": [{**CHECK, "expect": [[200]]}]}, "checks[0].expect[0]"),
        ([], ""),
        (None, ""),
        (7, ""),
    ],
)
def test_an_invalid_body_is_refused_with_the_path_of_the_field(body: object, field: str) -> None:
    assert refusal(body).field == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**MINIMAL, "tags": ["a", "a"]}, "tags"),
        ({**MINIMAL, "tags": [""]}, "tags[0]"),
        ({**MINIMAL, "address": "a b"}, "address"),
        ({**MINIMAL, "metadata": {"team": "a\nb"}}, "metadata.team"),
        ({**MINIMAL, "zone": "\u0007"}, "zone"),
        ({**MINIMAL, "checks": [CHECK, CHECK]}, "checks"),
        ({**MINIMAL, "checks": [CHECK, {**CHECK, "name": "db", "path": "x"}]}, "checks[1].path"),
        ({**MINIMAL, "checks": [{**CHECK, "headers": {"Upgrade": "x"}}]}, "checks[0].headers.Upgrade"),
    ],
)
def test_invariants_of_the_model_are_refused_with_the_path_of_the_field(body: object, field: str) -> None:
    decoded = wire.decode(json.dumps(body), wire.RegistrationBody)
    with pytest.raises(Invalid) as refused:
        decoded.to_registration("orders", "o1", peer="127.0.0.1")
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        ({"leases": [{"service": "A", "id": "b"}]}, wire.RenewBody, "leases[0].service"),
        ({"leases": [{"service": "a", "id": "b c"}]}, wire.RenewBody, "leases[0].id"),
        ({"leases": [{"service": "a", "id": "b"}] * (wire.MAX_RENEWALS + 1)}, wire.RenewBody, "leases"),
        ({"status": "passing"}, wire.OverrideBody, "status"),
        ({"status": "draining", "wait": 301}, wire.OverrideBody, "wait"),
        ({"status": "draining", "reason": "a" * 1025}, wire.OverrideBody, "reason"),
        ({"revision": -1}, wire.AcknowledgementBody, "revision"),
    ],
)
def test_every_kind_of_body_is_refused_with_the_field(body: object, kind: type[Any], field: str) -> None:
    assert refusal(body, kind).field == field


@pytest.mark.parametrize(
    ("body", "kind", "suggestion"),
    [
        ({"port": 80, "prot": 81}, wire.RegistrationBody, "port"),
        ({"port": 80, "Metadata": {}}, wire.RegistrationBody, "metadata"),
        ({"port": 80, "checks": [{"name": "a", "kind": "tcp", "intervall": 1}]}, wire.RegistrationBody, "interval"),
        ({"leases": [{"service": "a", "id": "b", "hodler": "c"}]}, wire.RenewBody, "holder"),
        ({"port": 80, "colour": "blue"}, wire.RegistrationBody, None),
    ],
)
def test_the_error_for_an_unknown_field_suggests_a_similar_one(
    body: object, kind: type[Any], suggestion: str | None
) -> None:
    with pytest.raises(Invalid) as raised:
        wire.decode(json.dumps(body), kind)
    assert raised.value.problem.endswith(f"did you mean `{suggestion}`?" if suggestion else "`colour`")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b"\xff\xfe",
        b'{"\xff":1}',
        b"{'port':1}",
        b'{"port":1}}',
        b'{"port":1,}',
        b'{"port":NaN}',
        "\ud800",
    ],
)
def test_a_body_that_is_not_json_is_refused(body: bytes | str) -> None:
    refused = refusal(body)
    assert (refused.field, refused.problem[:21]) == ("", "the body must be JSON")


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"'])
def test_half_a_surrogate_pair_is_refused(text: bytes) -> None:
    refusal(b'{"port":1,"zone":%s}' % text)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 10_000, "0." + "0" * 10_000 + "1", "-0", "1e-400"])
@pytest.mark.parametrize("field", ["port", "ttl", "grace", "weight"])
def test_huge_and_tiny_numbers_are_refused_or_zero(number: str, field: str) -> None:
    body = attempt(f'{{"port":1,"{field}":{number}}}', wire.RegistrationBody)
    if isinstance(body, Invalid):
        assert body.field == field
    else:
        assert getattr(body, field) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nest", [b"[", b'{"a":', b'{"checks":[', b'{"instances":[', b'{"leases":[{"a":'])
def test_a_deeply_nested_body_is_refused(kind: type[Any], nest: bytes) -> None:
    refusal(nest * 100_000, kind)
    refusal(b'{"port":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", wire.RegistrationBody)


@pytest.mark.parametrize(
    "body", [{**MINIMAL, "x" * 100_000: 1}, {**MINIMAL, "checks": [{**CHECK, "kind": "x" * 100_000}]}]
)
def test_an_error_does_not_repeat_all_that_was_sent(body: object) -> None:
    assert len(str(refusal(body))) <= 2 * wire.MAX_PROBLEM_LENGTH + 10


@given(st.binary(max_size=200), st.sampled_from(KINDS))
@example(b"\xef\xbb\xbf{}", wire.RegistrationBody)
def test_any_bytes_decode_or_are_invalid(body: bytes, kind: type[Any]) -> None:
    attempt(body, kind)


WORDS = st.one_of(
    st.sampled_from(sorted({name for kind in KINDS for name in kind.__struct_fields__} | set(CHECK) | {"service"})),
    st.text(max_size=8),
)
"""Names of fields, and other texts."""
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(WORDS, values, max_size=5),
    max_leaves=20,
)
REGISTRATIONS = st.fixed_dictionaries({"port": st.integers(-1, 70_000)}, optional={
    "address": st.text(max_size=8) | strategies.addresses,
    "scheme": WORDS,
    "zone": WORDS,
    "tags": st.lists(WORDS, max_size=3),
    "metadata": st.dictionaries(WORDS, WORDS, max_size=3),
    "ttl": st.none() | NUMBERS,
    "grace": NUMBERS,
    "checks": st.lists(st.fixed_dictionaries({"name": WORDS, "kind": st.sampled_from(CheckKind)}, optional={
        "path": WORDS.map("/".__add__),
        "headers": st.dictionaries(WORDS, WORDS, max_size=2),
        "expect": st.lists(st.lists(st.integers(0, 700), min_size=2, max_size=2), max_size=3),
    }), max_size=2),
})  # fmt: skip
"""Registrations with fields of the right types. Few are valid."""


@given(JSON, st.sampled_from(KINDS))
@settings(max_examples=200)
def test_any_json_decodes_or_is_invalid(body: object, kind: type[Any]) -> None:
    attempt(json.dumps(body), kind)


@given(REGISTRATIONS)
@settings(max_examples=200)
def test_any_valid_registration_arrives_as_it_was_sent(body: object) -> None:
    try:
        registration = wire.decode(json.dumps(body), wire.RegistrationBody).to_registration("s", "i", "127.0.0.1")
    except Invalid:
        return
    assert (
        transferred(wire.RegistrationBody.from_registration(registration)).to_registration("s", "i", "192.0.2.1")
        == registration
    )


@pytest.mark.parametrize("piece", [" - at `$", " - at `$[", "unknown field `", "["])
def test_an_error_takes_linear_time_for_any_body(piece: str) -> None:
    """A pattern that searches to the end of the message from each of these takes hours, and exceeds the timeout."""
    body = wire.encode({piece * 200_000: 1})
    with pytest.raises(Invalid) as refused:
        wire.decode(body, wire.RegistrationBody)
    assert len(str(refused.value)) < 1_000
