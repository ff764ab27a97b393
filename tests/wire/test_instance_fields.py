"""The declared fields of an instance in its bodies."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from adsum import wire
from adsum.core.model import Endpoint, Instance, Listing
from tests.support import strategies


@pytest.mark.parametrize("body", [wire.RegistrationBody, wire.InstanceView])
def test_every_field_that_an_instance_declares_is_in_its_bodies(body: type[msgspec.Struct]) -> None:
    declared = set(Instance.__struct_fields__) - {"service", "id"}
    assert declared <= set(body.__struct_fields__)


@given(strategies.listings())
@settings(max_examples=40)
def test_an_endpoint_arrives_as_it_was_sent(listing: Listing) -> None:
    endpoint = Endpoint(listing.instance, listing.status, "a1b2")
    view = wire.decode(wire.encode(wire.InstanceView.from_endpoint(endpoint)), wire.InstanceView)
    assert view.to_endpoint(listing.key.service) == endpoint


@given(strategies.listings())
@settings(max_examples=40)
def test_an_instance_arrives_as_it_was_registered(listing: Listing) -> None:
    body = wire.decode(
        wire.encode(wire.RegistrationBody.from_registration(listing.registration)), wire.RegistrationBody
    )
    assert body.to_registration(*listing.key, "192.0.2.1").instance == listing.instance
