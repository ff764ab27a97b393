"""Hypothesis strategies for all valid values of the model, from plain to extreme ones."""

from __future__ import annotations

import string
from types import MappingProxyType

from hypothesis import strategies as st

from adsum.core import model, validation
from adsum.core.catalog.changes import Change
from adsum.core.model import Check, CheckKind, Instance, Key, LeaseState, Listing, Override, Registration, Status
from adsum.core.provenance import Cause, Provenance

_LETTERS = string.ascii_letters + string.digits


def _up_to(max_length: int, texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draws from `texts`, and at times repeats a text up to the maximum length."""
    longest = texts.filter(len).map(lambda value: (value * max_length)[:max_length])
    return st.one_of(texts, texts, texts, longest)


service_names = _up_to(
    validation.MAX_SERVICE_NAME_LENGTH, st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
).map(lambda name: name if name[-1] != "-" else name[:-1] + "z")
ids = _up_to(validation.MAX_ID_LENGTH, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,8}", fullmatch=True))
keys = st.builds(Key, service_names, ids)

_LABELS = st.from_regex(r"[a-z_]([A-Za-z0-9_-]{0,20}[A-Za-z0-9_])?", fullmatch=True)
addresses = st.one_of(
    st.ip_addresses().filter(lambda ip: not ip.is_unspecified and not ip.is_multicast).map(str),
    st.lists(_LABELS, min_size=1, max_size=4).map(".".join),
)


def texts(length: int = validation.MAX_TEXT_LENGTH, min_size: int = 0) -> st.SearchStrategy[str]:
    """One line of text in any script."""
    return _up_to(
        length, st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=min_size, max_size=12)
    )


metadata = st.dictionaries(
    _up_to(validation.MAX_TEXT_LENGTH, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,8}", fullmatch=True)),
    texts(validation.MAX_VALUE_LENGTH),
    max_size=3,
).map(model.freeze)

headers = st.dictionaries(
    st.text(_LETTERS + "!#$%&'*+.^_`|~-", max_size=20).map("X-".__add__),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    max_size=3,
).map(model.freeze)


def durations(least: float, most: float) -> st.SearchStrategy[float]:
    """Seconds, mostly whole ones."""
    return st.one_of(
        st.sampled_from([least, most]),
        st.integers(round(least + 0.5), int(most)).map(float),
        st.floats(least, most),
    )


wall_times = st.one_of(st.just(0.0), st.floats(1.6e9, 2e9))
"""Instants on the wall clock."""

instances = st.builds(
    Instance,
    service=service_names,
    id=ids,
    address=addresses,
    port=st.integers(1, 65_535),
    scheme=st.one_of(st.just("http"), st.from_regex(r"[a-z][a-z0-9+.-]{0,15}", fullmatch=True)),
    zone=texts(),
    weight=st.integers(0, model.MAX_WEIGHT),
    tags=st.lists(texts(min_size=1), max_size=4, unique=True).map(tuple),
    metadata=metadata,
)

_STREAKS = st.integers(1, model.MAX_STREAK)
_EXPECTED = st.tuples(st.integers(100, 599), st.integers(100, 599)).map(lambda pair: (min(pair), max(pair)))

checks = st.builds(
    Check,
    name=ids,
    kind=st.sampled_from(CheckKind),
    interval=durations(model.MIN_INTERVAL, model.MAX_INTERVAL),
    timeout=durations(0.01, model.MAX_TIMEOUT),
    rise=_STREAKS,
    fall=_STREAKS,
    port=st.none() | st.integers(1, 65_535),
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=100).map("/".__add__),
    method=st.sampled_from(["GET", "HEAD", "POST", "OPTIONS"]),
    headers=headers,
    expect=st.lists(_EXPECTED, min_size=1, max_size=4).map(tuple),
    grpc_service=texts(),
    tls=st.booleans(),
)

registrations = st.builds(
    Registration,
    instance=instances,
    ttl=st.none() | durations(model.MIN_TTL, model.MAX_TTL),
    grace=durations(0.0, model.MAX_GRACE),
    checks=st.lists(checks, max_size=2, unique_by=lambda check: check.name).map(tuple),
    holder=texts(),
)

overrides = st.builds(
    Override,
    status=st.sampled_from([Status.DRAINING, Status.MAINTENANCE]),
    author=texts(),
    reason=texts(validation.MAX_VALUE_LENGTH),
    length=st.none() | durations(1.0, model.MAX_OVERRIDE),
    holder=st.none() | texts(),
    at=wall_times,
)

provenances = st.builds(
    Provenance,
    cause=st.sampled_from(Cause),
    actor=texts(),
    reason=texts(validation.MAX_VALUE_LENGTH),
    at=wall_times,
    peer=texts(),
    claimed=texts(),
)

check_statuses = st.sampled_from([Status.PASSING, Status.WARNING, Status.STARTING, Status.CRITICAL])
"""The statuses of a check."""


@st.composite
def listings(draw: st.DrawFn, registrations: st.SearchStrategy[Registration] = registrations) -> Listing:
    """A listing of one of the registrations, in any state."""
    registration = draw(registrations)
    return Listing(
        registration,
        draw(provenances),
        draw(st.sampled_from(LeaseState)),
        MappingProxyType({check.name: draw(check_statuses) for check in registration.checks}),
        draw(st.none() | overrides),
        draw(wall_times),
        draw(texts()),
    )


@st.composite
def changes(draw: st.DrawFn, listings: st.SearchStrategy[Listing] = listings()) -> Change:  # noqa: B008
    """A change that lists, changes or removes one of the listings."""
    listing = draw(listings)
    return Change(listing.key, draw(st.sampled_from([listing, listing, None])), draw(provenances))


@st.composite
def simple_registrations(draw: st.DrawFn, services: int = 2, instances: int = 3) -> Registration:
    """A registration from few names and few differences, so that histories repeat themselves."""
    instance = Instance(
        f"s{draw(st.integers(1, services))}",
        f"i{draw(st.integers(1, instances))}",
        "127.0.0.1",
        draw(st.sampled_from([8000, 8001])),
        zone=draw(st.sampled_from(["", "a"])),
    )
    names = draw(st.sampled_from([(), ("a",), ("a", "b")]))
    kinds = draw(st.sampled_from([CheckKind.TCP, CheckKind.HTTP]))
    return Registration(
        instance, checks=tuple(Check(name, kinds) for name in names), holder=draw(st.sampled_from(["", "h1", "h2"]))
    )


simple_changes = changes(listings(simple_registrations()))
"""Changes of a small catalog, so that most of them change a listed instance."""
