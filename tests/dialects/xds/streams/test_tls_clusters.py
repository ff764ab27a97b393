"""No instance is called in plain text when a gateway rejects the cluster that would encrypt the calls."""

from __future__ import annotations

import pytest

from adsum.dialects.xds.streams import delta, sotw
from tests.dialects.xds.fakes import CDS, EDS, LDS, RDS, Contents
from tests.dialects.xds.streams.rejecting_client import RejectingClient, is_substitute

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
