"""The xDS bootstrap names the registry's nodes in forms that the gRPC libraries of all languages accept."""

from __future__ import annotations

import json

import pytest

from adsum.core.errors import Invalid
from adsum.dialects.xds.settings import DEFAULT_XDS_PORT
from adsum.integrations.grpc_bootstrap import XDS_PORT, grpc_bootstrap


def _uris(xds: str = "", url: str = "", *, joined: bool = False) -> list[str]:
    return [server["server_uri"] for server in grpc_bootstrap(xds, url, joined=joined)["xds_servers"]]


def test_each_node_is_an_entry_and_an_ip_address_has_no_scheme() -> None:
    assert _uris("10.0.0.1:23787, 10.0.0.2:23788") == ["10.0.0.1:23787", "10.0.0.2:23788"]
    assert _uris("[0:0::1]:23787,10.0.0.2:23787") == ["[::1]:23787", "10.0.0.2:23787"]


def test_a_name_is_looked_up_in_dns() -> None:
    assert _uris("n1.example.org:23787,10.0.0.2:1") == ["dns:///n1.example.org:23787", "10.0.0.2:1"]


def test_by_default_each_host_of_the_registry_is_named_once() -> None:
    assert _uris() == ["127.0.0.1:23787"]
    assert _uris(url="http://n1:1,https://[::1]:2,http://n1:3") == ["dns:///n1:23787", "[::1]:23787"]


def test_the_default_port_is_the_registrys() -> None:
    assert XDS_PORT == DEFAULT_XDS_PORT


def test_nodes_of_one_family_are_joined_only_on_request() -> None:
    assert _uris("10.0.0.1:1,10.0.0.2:2", joined=True) == ["ipv4:10.0.0.1:1,10.0.0.2:2"]
    assert _uris("[::1]:1,[::2]:2", joined=True) == ["ipv6:[::1]:1,[::2]:2"]
    assert _uris("[::1]:1,10.0.0.2:2", joined=True) == ["[::1]:1", "10.0.0.2:2"]
    assert _uris("n1:1,n2:2", joined=True) == ["dns:///n1:1", "dns:///n2:2"]
    assert _uris("10.0.0.1:1", joined=True) == ["10.0.0.1:1"]


def test_the_node_has_a_locality_because_node_js_requires_one() -> None:
    node = json.loads(json.dumps(grpc_bootstrap()))["node"]
    assert node["id"]
    assert node["locality"] == {}


@pytest.mark.parametrize(
    ("xds", "reason"),
    [
        ("nowhere", "HOST:PORT"),
        ("nowhere:0", "HOST:PORT"),
        ("nowhere:65536", "HOST:PORT"),
        ("n1:1,n2", "'n2'"),
        ("::1:23787", "in brackets"),
        ("[fe80::1%eth0]:23787", "IPv6 zone"),
        ("[n1]:23787", "HOST:PORT"),
        ("ipv4:10.0.0.1:23787", "HOST:PORT"),
        ("http://n1:23787", "HOST:PORT"),
        ("dns:///n1:23787", "HOST:PORT"),
        ("n 1:23787", "HOST:PORT"),
    ],
)
def test_an_address_that_no_client_could_dial_is_refused(xds: str, reason: str) -> None:
    with pytest.raises(Invalid, match=r"xds") as refused:
        grpc_bootstrap(xds)
    assert reason in str(refused.value)


@pytest.mark.parametrize("url", ["etcd://e1:2379", "consul://127.0.0.1:8500"])
def test_other_kinds_of_registry_have_no_default_port(url: str) -> None:
    with pytest.raises(Invalid, match="must be given"):
        grpc_bootstrap(url=url)
