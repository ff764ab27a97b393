"""The body of a request that registers many instances."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum import wire
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import Invalid
from adsum.core.model import Registration
from tests.support import strategies


@given(st.lists(strategies.registrations, max_size=4), st.sampled_from(Takeover))
def test_registrations_come_back_as_they_were_sent(registrations: list[Registration], takeover: Takeover) -> None:
    bodies = [wire.NamedRegistrationBody.from_registration(sent, takeover) for sent in registrations]
    texts = wire.split_registrations(wire.encode(wire.RegisterBody(bodies)))
    decoded = [wire.decode_registration(text) for text in texts]
    assert [body.register("10.9.9.9") for body in decoded] == registrations
    assert {body.takeover for body in decoded} <= {takeover}


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_other_body_is_refused_with_an_error_of_its_own(body: bytes) -> None:
    with pytest.raises(Invalid):
        wire.split_registrations(body)
    with pytest.raises(Invalid):
        wire.decode_registration(body)
