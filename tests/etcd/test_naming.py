"""The format of etcd's gRPC naming packages."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.core.instance_texts import MAX_METADATA, MAX_TAGS
from adsum.core.model import Instance, freeze
from adsum.etcd import naming
from tests.support import strategies


@given(strategies.instances)
def test_an_encoded_instance_decodes_to_itself(instance: Instance) -> None:
    value = naming.encode(instance)
    assert naming.decode(instance.service, value) == instance
    fields = json.loads(value)
    assert (fields["Op"], fields["Addr"], fields["Metadata"]) == (0, instance.authority, None)
    key = naming.key("/p/", instance)
    assert key.startswith(naming.directory("/p/", instance.service))
    assert key.endswith(instance.authority.encode())
    assert naming.service("/p/", key) == instance.service


def test_the_largest_valid_instance_can_be_decoded() -> None:
    widest = "\U0001f600"
    instance = Instance(
        "s" * validation.MAX_SERVICE_NAME_LENGTH,
        "i" * validation.MAX_ID_LENGTH,
        "h." * 100,
        65_535,
        zone=widest * validation.MAX_TEXT_LENGTH,
        tags=tuple(f"{n:04}{widest * (validation.MAX_TEXT_LENGTH - 4)}" for n in range(MAX_TAGS)),
        metadata=freeze(
            {f"{n:0{validation.MAX_TEXT_LENGTH}}": widest * validation.MAX_VALUE_LENGTH for n in range(MAX_METADATA)}
        ),
    )
    value = naming.encode(instance, published=True, holder="h" * validation.MAX_TEXT_LENGTH)
    assert naming.decode(instance.service, value) == instance
    assert naming.is_published(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}', Instance("s", "10.0.0.1:80", "10.0.0.1", 80)),
        (b'{"Op":1,"addr":"h:1","Metadata":"text","more":[1]}', Instance("s", "h:1", "h", 1)),
        (b" 10.0.0.1:80\n", Instance("s", "10.0.0.1:80", "10.0.0.1", 80)),
        (b'{"Addr":"[::1]:80"}', Instance("s", "1:80", "::1", 80)),
        (
            b'{"Addr":"h:1","Adsum":{"id":"o1","weight":true,"tags":["a",2],"metadata":{"k":"v"},"new":1}}',
            Instance("s", "o1", "h", 1, metadata=freeze({"k": "v"})),
        ),
        (b'{"Addr":"h:1","Adsum":{"id":"../x","zone":"z"}}', Instance("s", "h:1", "h", 1, zone="z")),
        (b'{"Addr":"h:1","Adsum":{"id":"","zone":"z"}}', Instance("s", "h:1", "h", 1, zone="z")),
        (b'{"Addr":"h:1","Adsum":{"id":"o1","scheme":"NO"}}', Instance("s", "h:1", "h", 1)),
        (
            b'{"Addr":"h:1","Metadata":{"version":"v2","weight":5,"canary":true,"deep":{"a":1},"":"x","a b":1.5}}',
            Instance("s", "h:1", "h", 1, metadata=freeze({"version": "v2", "weight": "5", "canary": "true"})),
        ),
        (
            b'{"Addr":"h:1","Metadata":{"k":"theirs"},"Adsum":{"metadata":{"k":"ours"}}}',
            Instance("s", "h:1", "h", 1, metadata=freeze({"k": "ours"})),
        ),
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"host", None),
        (b"h:0", None),
        (b"h:99999", None),
        (b'{"Addr":7}', None),
        (b"\xff:80", None),
        (b'{"Addr":"h:1","x":"' + b"x" * naming.MAX_VALUE_BYTES + b'"}', None),
        (b"{" * 50_000, None),
    ],
)
def test_values_of_other_programs_are_decoded_if_they_can_be_called(value: bytes, expected: Instance | None) -> None:
    assert naming.decode("s", value) == expected


def test_only_some_of_the_metadata_of_other_programs_is_decoded() -> None:
    fields = {"Addr": "h:1", "Metadata": {f"k{number}": "v" for number in range(500)}}
    found = naming.decode("s", json.dumps(fields).encode())
    assert found is not None
    assert set(found.metadata) == {f"k{number}" for number in range(naming.MAX_FOREIGN_METADATA)}


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.dictionaries(st.text(), st.text()).map(lambda d: json.dumps(d).encode())
)
def test_no_value_raises_an_error(value: bytes) -> None:
    found = naming.decode("s", value)
    assert found is None or found.service == "s"


@pytest.mark.parametrize(
    ("key", "expected"), [(b"p/h:1", "below the prefix"), (b"p//x", "service"), (b"p/No No/x", "service")]
)
def test_a_key_outside_the_directory_of_a_service_is_refused(key: bytes, expected: str) -> None:
    with pytest.raises(Invalid, match=expected):
        naming.service("p/", key)


@pytest.mark.parametrize(
    ("prefix", "store", "overlap"),
    [
        ("/adsum/", "/adsum/", True),
        ("/adsum/catalog/", "/adsum/", True),
        ("/", "/adsum/", True),
        ("", "adsum/", True),
        ("", "/adsum/", False),
        ("/adsum-naming/", "/adsum/", False),
        ("adsum/", "/adsum/", False),
        ("/a/", "/a//b/", False),
    ],
)
def test_services_and_a_store_may_share_an_etcd_if_no_key_could_belong_to_both(
    prefix: str, store: str, overlap: bool
) -> None:
    assert naming.overlaps(prefix, store) is overlap
