"""No instance is called in plain text when a gateway rejects the cluster that would encrypt the calls."""

from __future__ import annotations

from types import ModuleType

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.dialects.xds.streams import delta, sotw
from tests.dialects.xds.fakes import CDS, EDS, LDS, RDS, Contents, resource
from tests.dialects.xds.streams.rejecting_client import RejectingClient, is_substitute

SERVICES = "ab"
TLS, INVALID = 1, 2
"""Bits of the number that is a cluster's content, for tests with many versions."""
both_variants = pytest.mark.parametrize("variant", [delta, sotw], ids=["delta", "sotw"])
CAUSE = "the gateway refuses the settings of this service: Invalid path: no-such-file.pem"


def _world(**clusters: int) -> Contents:
    return {CDS: clusters, EDS: dict.fromkeys(clusters, 1), LDS: {"main": 1}, RDS: {"main": len(clusters)}}


@pytest.fixture(params=[delta, sotw], ids=["delta", "sotw"])
def client(request: pytest.FixtureRequest) -> RejectingClient:
    client = RejectingClient(request.param)
    client.publish(_world(a=1))
    client.connect()
    return client


def test_no_instance_is_called_in_plain_text_when_a_cluster_with_tls_is_rejected(
    client: RejectingClient,
) -> None:
    client.wrong = {"a": 2}
    client.publish(_world(a=2, b=1), encrypted="ab")
    client.settle()
    assert client.cause("a") == CAUSE
    assert not is_substitute(client.used["b"])


def test_a_cluster_with_tls_whose_change_is_rejected_keeps_its_version(client: RejectingClient) -> None:
    client.publish(_world(a=3), encrypted="a")
    client.settle()
    client.wrong = {"a": 4}
    client.publish(_world(a=4), encrypted="a")
    client.settle()
    assert client.used["a"].alt_stat_name == "3"


def test_a_version_in_plain_text_that_is_accepted_once_tls_is_published_is_not_kept(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    while client.take() is not None:
        pass  # A busy gateway has applied the cluster and not acknowledged it yet.
    client.wrong = {"typo": 2}
    client.publish(_world(a=1, typo=2), encrypted=["typo"])
    client.settle()
    assert is_substitute(client.used["typo"])
    assert client.cause("typo") == CAUSE
    assert client.session.is_current


def test_a_version_with_tls_that_is_accepted_once_plain_text_is_published_does_not_count_for_later_versions(
    client: RejectingClient,
) -> None:
    client.publish(_world(a=2), encrypted="a")
    client.take()
    client.publish(_world(a=3))
    client.settle()
    client.wrong = {"a": 4}
    client.publish(_world(a=4), encrypted="a")
    client.settle()
    assert client.cause("a") == CAUSE


def test_a_version_in_plain_text_that_is_accepted_beside_a_rejected_cluster_is_not_kept_for_one_with_tls(
    client: RejectingClient,
) -> None:
    client.publish(_world(a=2), encrypted="a")
    client.settle()
    client.wrong = {"a": 4, "typo": 1}
    client.publish(_world(a=3, typo=1))
    client.take()
    client.publish(_world(a=4, typo=1), encrypted="a")
    client.settle()
    assert client.used["a"].alt_stat_name != "3"
    assert client.cause("a") == CAUSE


def test_a_rejected_version_in_plain_text_does_not_count(client: RejectingClient) -> None:
    client.publish(_world(a=2), encrypted="a")
    client.settle()
    client.wrong = {"a": 3}
    client.publish(_world(a=3))
    client.settle()
    client.wrong = {"a": 4}
    client.publish(_world(a=4), encrypted="a")
    client.settle()
    assert client.used["a"].alt_stat_name == "2", "it uses TLS"


@pytest.mark.parametrize(("number", "kept"), [(2, "2"), (3, "")], ids=["current", "old"])
def test_a_cluster_that_a_gateway_has_from_an_earlier_stream_is_kept_if_it_is_known_to_use_tls(
    number: int, kept: str
) -> None:
    client = RejectingClient(delta)
    client.publish(_world(a=number), encrypted="a")
    # It reconnects with version 2, which may be in plain text unless it is the published one.
    client.request(CDS, initial_resource_versions={"a": resource(CDS, "a", 2).version})
    client.request(EDS, "a", initial_resource_versions={"a": resource(EDS, "a", 1).version})
    client.used["a"] = Cluster(name="a", alt_stat_name="2")
    client.wrong = {"a": 3}
    client.settle()
    client.wrong = {"a": 4}
    client.publish(_world(a=4), encrypted="a")
    client.settle()
    assert client.used["a"].alt_stat_name == kept
    assert is_substitute(client.used["a"]) is not bool(kept)


class BitwiseClient(RejectingClient):
    """A client that rejects the clusters whose content has the bit `INVALID`."""

    def rejects(self, name: str, content: int) -> bool:
        return bool(content & INVALID)


VERSIONS = st.dictionaries(st.sampled_from(SERVICES), st.integers(0, 11))
STEPS = st.lists(st.one_of(VERSIONS, st.sampled_from(["take", "answer", "settle"])), max_size=30)


@both_variants
@given(steps=STEPS, last=VERSIONS)
@settings(max_examples=300)
def test_whenever_nothing_is_left_to_send_each_cluster_is_the_published_one_or_uses_tls_or_has_a_substitute(
    variant: ModuleType, steps: list[dict[str, int] | str], last: dict[str, int]
) -> None:
    client = BitwiseClient(variant)
    client.publish(_world())
    client.connect()
    published: dict[str, int] = {}
    for step in [*steps, last, "settle"]:
        if isinstance(step, dict):
            published = step
            client.publish(_world(**step), encrypted=[name for name, number in step.items() if number & TLS])
        elif step == "take":
            client.take()
        elif step == "answer":
            client.answer()
        else:
            client.settle()
            assert client.used.keys() == published.keys()
            for name, number in published.items():
                _check(client.used[name], number)


def _check(used: Cluster, number: int) -> None:
    """Checks what the client uses while that content is published."""
    if is_substitute(used):
        assert number & INVALID
        return
    if not number & INVALID:
        assert used.alt_stat_name == str(number)
    elif number & TLS:
        assert int(used.alt_stat_name) & TLS, "it would call instances with TLS in plain text"
