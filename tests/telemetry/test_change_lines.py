"""Log lines of changes: the same bytes as those of `change_entry`, whatever they have in common."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog.changes import Change, Fact, forget_service
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.telemetry.change_lines import CHANGE_LINES, change_entry
from adsum.telemetry.logs import LINE_FORMATS
from tests.stores.support import put_token
from tests.support.strategies import changes, provenances, service_names

_FORGETTING = st.builds(forget_service, service_names, provenances)
_FACTS = st.lists(st.one_of(changes(), changes(), _FORGETTING, st.just(put_token("new"))), max_size=5)


@pytest.mark.parametrize("format", LINE_FORMATS)
@given(facts=_FACTS, revision=st.integers(0, 2**63 - 1))
def test_the_lines_of_a_batch_are_those_of_its_changes(format: str, facts: list[Fact], revision: int) -> None:
    lines = [LINE_FORMATS[format](*change_entry(revision, fact)) for fact in facts]
    assert CHANGE_LINES[format](revision, facts) == b"".join(lines)


def test_a_line_names_the_instance_its_status_and_the_provenance() -> None:
    provenance = Provenance(Cause.REGISTERED, "ann", "moved house", 1.5, "10.0.0.9", "bob")
    listing = Listing(Registration(Instance("orders", "o1", "10.0.0.1", 80)), provenance)
    facts = [Change(Key("orders", "o1"), listing, provenance), Change(Key("orders", "o2"), None, provenance)]
    marks = "cause=registered actor=ann claimed=bob peer=10.0.0.9 reason='moved house'"
    assert CHANGE_LINES["text"](7, facts).decode().splitlines() == [
        f"1970-01-01T00:00:01.500Z info    change revision=7 service=orders id=o1 status=passing {marks}",
        f"1970-01-01T00:00:01.500Z info    change revision=7 service=orders id=o2 status=gone {marks}",
    ]
    assert [json.loads(line)["status"] for line in CHANGE_LINES["json"](7, facts).splitlines()] == ["passing", "gone"]
