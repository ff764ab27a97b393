from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.errors import Invalid
from adsum.gateway.profile import GatewayProfile

profiles = st.builds(
    GatewayProfile,
    st.lists(st.sampled_from(["127.0.0.1:80", "0.0.0.0:8080", "[::1]:0", "[::]:443"]), min_size=1, unique=True).map(
        tuple
    ),
    st.booleans(),
    st.sampled_from(["json", "text", "off"]),
    trusted_hops=st.integers(0, 16),
    zone=st.sampled_from(["", "a"]),
    roots=st.sampled_from(["", "/etc/ca.pem"]),
)


@given(profiles)
def test_node_metadata_round_trips_a_profile(profile: GatewayProfile) -> None:
    struct = json_format.ParseDict(profile.metadata(), Struct())
    assert (
        GatewayProfile.from_metadata(profile.metadata())
        == GatewayProfile.from_metadata(json_format.MessageToDict(struct))
        == profile
    )


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "adsum"),
        ({"adsum": "x"}, "adsum"),
        ({"adsum": {}}, "listen"),
        ({"adsum": {"listen": "127.0.0.1:80"}}, "listen"),
        ({"adsum": {"listen": []}}, "listen"),
        ({"adsum": {"listen": ["localhost:80"]}}, "listen[0]"),
        ({"adsum": {"listen": ["127.0.0.1:70000"]}}, "listen[0]"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "default_routes": 1}}, "default_routes"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "trusted_hops": 1.5}}, "trusted_hops"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "trusted_hops": 99}}, "trusted_hops"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "access_log": "xml"}}, "access_log"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "tls_key": "/x"}}, "tls_key"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "roots": "x"}}, "roots"),
        ({"adsum": {"listen": ["127.0.0.1:80"], "evil": "x"}}, "'evil'"),
    ],
)
def test_metadata_without_a_valid_profile_is_refused(metadata: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        GatewayProfile.from_metadata(metadata)
    assert refused.value.field == field


def test_an_envoy_without_a_profile_gets_the_line_that_its_bootstrap_needs() -> None:
    with pytest.raises(Invalid) as refused:
        GatewayProfile.from_metadata({})
    line = re.search('`"node": (.+)`', str(refused.value))
    assert line is not None
    assert GatewayProfile.from_metadata(json.loads(line[1])["metadata"]).listen == ("0.0.0.0:8080",)
