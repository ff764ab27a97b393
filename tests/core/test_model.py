from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from adsum.core import model
from adsum.core.catalog.changes import Change
from adsum.core.errors import Invalid
from adsum.core.model import (
    Check,
    CheckKind,
    Endpoint,
    Instance,
    Key,
    LeaseState,
    Listing,
    Override,
    Registration,
    Status,
)
from adsum.core.provenance import Cause, Provenance
from tests.support import strategies

T = TypeVar("T")

INSTANCE = Instance("orders", "o1", "127.0.0.1", 8000)
CHECK = Check("web", CheckKind.HTTP)
REGISTRATION = Registration(INSTANCE)
OVERRIDE = Override(Status.DRAINING, "ann")
PROVENANCE = Provenance(Cause.REGISTERED, "tester")

CONTROL = ["a\nb", "a\r\nb", "a\0", "\x7f", "\x85", "\x1b[31m", "\u2028", "a\u2029b", "\ud800"]
"""Texts that are not one printable line."""


def error_of(make: Callable[[], object]) -> Invalid:
    with pytest.raises(Invalid) as refused:
        make()
    assert str(refused.value) == f"{refused.value.field}: {refused.value.problem}"
    assert len(str(refused.value)) < 300, "what was sent can't flood a log"
    return refused.value


def pairs(count: int) -> Mapping[str, str]:
    return {f"k{n}": "v" for n in range(count)}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("service", ["", "-a", "a-", "A", "a.b", "a_b", "é", "a" * 64, "a\n", "a b", "\u0663", "a" * 100_000]),
        ("id", ["", "-a", ".a", "a b", "a/b", "é", "a" * 129, "a\n", "a\0", "\ud800"]),
        ("address", ["", " ", "a b", "a..b", "-a", "a-", ".", "a/b", "a@b", "é.example", "a" * 64, "a\n", "1.2.3.4\n"]),
        ("address", ["1.2.3", "256.1.1.1", "1.2.3.4.5", "1.2.3.04", "12", "\u0661.\u0662", "127.0.0.1:80", "host:80"]),
        ("address", ["[::1]", "::1%eth0", "fe80::1%25eth0", "::1/128", "10.0.0.0/8", "1::2::3", ":::"]),
        ("address", ["0.0.0.0", "::", "224.0.0.1", "239.255.255.255", "ff02::1", ".".join(["a" * 50] * 6)]),
        ("port", [0, -1, 65_536, 10**30, math.nan]),
        ("scheme", ["", "HTTP", "1a", "http:", "a b", "a" * 17, "é"]),
        ("zone", ["a" * 129, *CONTROL]),
        ("weight", [-1, 1001, 10**30]),
        ("tags", [tuple(map(str, range(65))), ("a", "a")]),
        ("metadata", [pairs(65)]),
    ],
)
def test_an_invalid_instance_is_refused_and_its_field_named(field: str, values: list[Any]) -> None:
    for value in values:
        assert error_of(partial(replace, INSTANCE, **{field: value})).field == field


@pytest.mark.parametrize("text", ["", "a" * 129, *CONTROL])
def test_an_invalid_tag_is_named_by_its_position(text: str) -> None:
    assert error_of(lambda: replace(INSTANCE, tags=("fine", text))).field == "tags[1]"


@pytest.mark.parametrize("key", ["", "-a", "a b", "é", "a" * 129, "a\n", "a=b"])
def test_an_invalid_metadata_key_is_quoted(key: str) -> None:
    refused = error_of(lambda: replace(INSTANCE, metadata={"fine": "", key: "v"}))
    assert refused.field.startswith("metadata.'")
    assert refused.field.isprintable()


@pytest.mark.parametrize("value", ["a" * 1025, *CONTROL])
def test_an_invalid_metadata_value_is_named_by_its_key(value: str) -> None:
    assert error_of(lambda: replace(INSTANCE, metadata={"fine": "", "team": value})).field == "metadata.team"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ["", "a b", "a" * 129]),
        ("interval", [0.0, 0.09, 3600.1, -1.0, math.nan, math.inf, -math.inf]),
        ("timeout", [0.0, 0.009, 60.1, -1.0, math.nan, math.inf]),
        ("rise", [0, 101]),
        ("fall", [0, 101]),
        ("port", [0, 65_536]),
        ("path", ["", "health", "/a b", "/é", "/" + "a" * 1024, "/a\r\nX: y", "http://elsewhere/"]),
        ("method", ["", "get", "DELETE", "GET /"]),
        ("headers", [pairs(17)]),
        ("expect", [(), ((200, 299),) * 17, ((99, 200),), ((200, 600),), ((299, 200),)]),
        ("grpc_service", ["a" * 129, *CONTROL]),
    ],
)
def test_an_invalid_check_is_refused_and_its_field_named(field: str, values: list[Any]) -> None:
    for value in values:
        assert error_of(partial(replace, CHECK, **{field: value})).field == field


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\r\n", "a" * 129])
def test_a_header_whose_name_is_no_token_is_refused(name: str) -> None:
    assert error_of(lambda: replace(CHECK, headers={name: "v"})).field.startswith("headers.'")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "CONNECTION", "Upgrade"])
def test_a_header_that_the_probe_sets_is_refused(name: str) -> None:
    assert error_of(lambda: replace(CHECK, headers={name: "v"})).field == f"headers.{name}"


@pytest.mark.parametrize("value", ["é", "a" * 1025, *CONTROL])
def test_a_header_that_could_end_the_line_is_refused(value: str) -> None:
    assert error_of(lambda: replace(CHECK, headers={"X-A": value})).field == "headers.X-A"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("ttl", [0.0, 0.99, 86_400.1, -1.0, math.nan, math.inf, -math.inf]),
        ("grace", [-0.1, 7 * 86_400.1, math.nan, math.inf]),
        ("holder", ["a" * 129, *CONTROL]),
        ("checks", [tuple(replace(CHECK, name=f"c{n}") for n in range(9)), (CHECK, CHECK)]),
    ],
)
def test_an_invalid_registration_is_refused_and_its_field_named(field: str, values: list[Any]) -> None:
    for value in values:
        assert error_of(partial(replace, REGISTRATION, **{field: value})).field == field


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("status", [Status.PASSING, Status.WARNING, Status.STARTING, Status.CRITICAL]),
        ("author", ["a" * 129, *CONTROL]),
        ("reason", ["a" * 1025, *CONTROL]),
        ("length", [0.0, 0.9, 30 * 86_400.1, math.nan, math.inf]),
    ],
)
def test_an_invalid_override_is_refused_and_its_field_named(field: str, values: list[Any]) -> None:
    for value in values:
        assert error_of(partial(replace, OVERRIDE, **{field: value})).field == field


def test_values_at_their_bounds_are_accepted() -> None:
    Instance("a" * 63, "a" * 128, "a" * 63 + "." + "b" * 63, 65_535, "a" * 16, "z" * 128, model.MAX_WEIGHT)
    replace(INSTANCE, service="0", id="0", address="a.", port=1, weight=0)
    replace(INSTANCE, tags=("é" * 128, *map(str, range(63))), metadata={"k" * 128: "日" * 1024, **pairs(63)})
    replace(CHECK, interval=0.1, timeout=0.01, rise=100, fall=100, port=1, path="/" + "a" * 1023)
    replace(CHECK, interval=3600.0, timeout=60.0, expect=((100, 599),) * 16, headers={"X-" + "a" * 126: "~" * 1024})
    replace(REGISTRATION, ttl=1.0, grace=0.0, checks=tuple(replace(CHECK, name=f"c{n}") for n in range(8)))
    replace(REGISTRATION, ttl=86_400.0, grace=7 * 86_400.0)
    replace(OVERRIDE, author="", reason="é" * 1024, length=30 * 86_400.0)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "::1", "2001:db8::1", "fe80::1", "db", "my_db", "a.b-c.example", "db."]
)
def test_addresses_and_host_names_are_accepted(address: str) -> None:
    assert replace(INSTANCE, address=address).address == address


def attempt(make: Callable[[], T]) -> T | Invalid:
    """The value, or the error."""
    try:
        return make()
    except Invalid as refused:
        return refused


@given(st.sampled_from(["service", "id", "address", "scheme", "zone"]), st.text(st.characters(codec=None)))
def test_any_text_is_kept_unchanged_or_refused_with_its_field(field: str, text: str) -> None:
    instance = attempt(partial(replace, INSTANCE, **{field: text}))
    if isinstance(instance, Invalid):
        assert instance.field == field
    else:
        assert getattr(instance, field) == text.encode().decode()
        assert "\n" not in text


@given(st.sampled_from(["ttl", "grace"]), st.floats())
def test_any_number_of_seconds_is_kept_or_refused_with_its_field(field: str, value: float) -> None:
    registration = attempt(partial(replace, REGISTRATION, **{field: value}))
    if isinstance(registration, Invalid):
        assert registration.field == field
    else:
        assert math.isfinite(value)
        assert getattr(registration, field) == value


@given(strategies.instances)
def test_an_instance_has_a_key_a_place_an_authority_and_a_url(instance: Instance) -> None:
    assert instance.key == Key(instance.service, instance.id)
    assert str(instance.key) == f"{instance.service}/{instance.id}"
    host, _, port = instance.authority.rpartition(":")
    assert (host.strip("[]"), int(port)) == (instance.address, instance.port)
    assert (host[0] == "[") == (":" in instance.address)
    assert instance.url == f"{instance.scheme}://{instance.authority}"
    endpoint = Endpoint(instance)
    for name in ("id", "service", "address", "port", "zone", "weight", "authority", "url"):
        assert getattr(endpoint, name) == getattr(instance, name)


def test_values_are_immutable() -> None:
    given_tags = {"team": "x"}
    instance = replace(INSTANCE, metadata=model.freeze(given_tags))
    given_tags["team"] = "y"
    assert instance.metadata == {"team": "x"}
    with pytest.raises(TypeError):
        instance.metadata["team"] = "z"  # type: ignore[index]
    for value, field in ((instance, "port"), (CHECK, "port"), (REGISTRATION, "ttl"), (OVERRIDE, "author")):
        with pytest.raises(AttributeError):
            setattr(value, field, None)


@given(strategies.listings())
def test_the_status_of_a_listing_is_its_override_or_its_worst_evidence(listing: Listing) -> None:
    worst = [Status.PASSING, Status.WARNING, Status.STARTING, Status.CRITICAL]
    evidence = max(listing.checks.values(), key=worst.index, default=Status.PASSING)
    if listing.lease is LeaseState.LAPSED:
        evidence = Status.CRITICAL
    assert listing.evidence is evidence
    assert listing.status is (listing.override.status if listing.override else evidence)
    assert listing.key == listing.instance.key == listing.registration.key


def test_a_listing_without_lease_and_checks_passes() -> None:
    assert Listing(replace(REGISTRATION, ttl=None), PROVENANCE).status is Status.PASSING


VALUES = [
    INSTANCE,
    CHECK,
    REGISTRATION,
    OVERRIDE,
    PROVENANCE,
    Endpoint(INSTANCE),
    Listing(REGISTRATION, PROVENANCE),
    Change(INSTANCE.key, None, PROVENANCE),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_equal_values_are_one_key_and_show_their_fields(value: msgspec.Struct) -> None:
    same = copy.copy(value)
    assert same == value
    assert same is not value
    assert repr(value).startswith(f"{type(value).__name__}({value.__struct_fields__[0]}=")
    assert value != object()
    with pytest.raises(TypeError):
        value < same  # type: ignore[operator]  # noqa: B015


@pytest.mark.parametrize("value", [OVERRIDE, PROVENANCE, Change(INSTANCE.key, None, PROVENANCE)])
def test_values_without_pairs_are_hashed_and_pickled(value: msgspec.Struct) -> None:
    assert hash(copy.copy(value)) == hash(value)
    assert pickle.loads(pickle.dumps(value)) == value


def test_the_status_of_a_listing_and_the_size_of_a_registration_are_computed_whatever_is_given() -> None:
    assert Listing(REGISTRATION, PROVENANCE, LeaseState.LAPSED, status=Status.PASSING).status is Status.CRITICAL
    assert Listing(REGISTRATION, PROVENANCE, override=OVERRIDE, status=Status.PASSING).status is Status.DRAINING
    assert Listing(REGISTRATION, PROVENANCE, status=Status.CRITICAL).status is Status.PASSING
    assert Registration(INSTANCE, size=1) == REGISTRATION
    larger = Registration(replace(INSTANCE, tags=("a",), metadata={"k": "v"}))
    assert replace(REGISTRATION, instance=larger.instance).size == larger.size > REGISTRATION.size


@given(st.lists(st.sampled_from(["a", "b", "", "x" * 128, "x" * 129, "a\n"]), max_size=10))
def test_tags_are_valid_or_not_however_often_they_were_seen(tags: list[str]) -> None:
    is_valid = len(set(tags)) == len(tags) and not {"", "x" * 129, "a\n"} & set(tags)
    for given_tags in (tuple(tags), tuple(tags), tags):
        result = attempt(partial(replace, INSTANCE, tags=given_tags))
        assert isinstance(result, Instance) is is_valid
        if is_valid:
            continue
        assert isinstance(result, Invalid)
        assert result.field.startswith("tags")


@given(
    st.dictionaries(
        st.sampled_from([*"abcdefghij", "-a", "k" * 129]), st.sampled_from(["", "v", "x" * 1025, "a\n"]), max_size=10
    )
)
def test_metadata_is_valid_or_not_however_often_it_was_seen(metadata: dict[str, str]) -> None:
    is_valid = not {"-a", "k" * 129} & metadata.keys() and not {"x" * 1025, "a\n"} & set(metadata.values())
    for _ in range(2):
        result = attempt(partial(replace, INSTANCE, metadata=metadata))
        assert isinstance(result, Instance) is is_valid
        assert is_valid or (isinstance(result, Invalid) and result.field.startswith("metadata."))


@given(st.integers(0, 2**32 - 1) | st.builds(lambda octet: octet << 24, st.integers(0, 255)))
def test_an_ipv4_address_is_accepted_unless_it_is_unspecified_or_multicast(number: int) -> None:
    ip = IPv4Address(number)
    accepted = isinstance(attempt(partial(replace, INSTANCE, address=str(ip))), Instance)
    assert accepted is not (ip.is_unspecified or ip.is_multicast)


@given(strategies.instances)
def test_the_address_and_port_of_an_instance_are_those_of_its_place(instance: Instance) -> None:
    assert instance.host_port == instance.place.host_port
