"""The xDS bootstrap names the registry's nodes in forms that the gRPC libraries of all languages accept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.client.credentials.xds import XdsCredentials
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


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credentials folder of this host, which has joined a registry of two nodes."""
    registry = RegistryCredentials(
        ("https://10.0.0.5:23786", "https://10.0.0.6:23786"),
        xds=("10.0.0.5:1", "reg.example:2"),
        authority="PEM",
        token="adsum_x",
    )
    folder = CredentialsFolder(tmp_path / "joined")
    folder.write(registry, "CHAIN", "KEY")
    monkeypatch.setenv("ADSUM_CREDENTIALS", str(folder.path))
    return folder.path


def test_a_joined_host_speaks_tls_with_its_files_at_the_addresses_that_it_has_got(joined: Path) -> None:
    servers = grpc_bootstrap(joined=True)["xds_servers"]
    assert [server["server_uri"] for server in servers] == ["10.0.0.5:1", "dns:///reg.example:2"]
    tls = {
        "type": "tls",
        "config": {
            "ca_certificate_file": str(joined / "authority.pem"),
            "certificate_file": str(joined / "client.pem"),
            "private_key_file": str(joined / "client.key"),
            "refresh_interval": "60s",
        },
    }
    assert [server["channel_creds"] for server in servers] == [[tls], [tls]]


@pytest.mark.usefixtures("joined")
def test_nodes_are_never_joined_over_tls() -> None:
    assert _uris("10.0.0.5:1,10.0.0.6:1", joined=True) == ["10.0.0.5:1", "10.0.0.6:1"]


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(("xds", "url"), [("127.0.0.1:23787", ""), ("", "http://10.0.0.9:23786")])
def test_another_registry_is_followed_in_plain_text(xds: str, url: str) -> None:
    (server,) = grpc_bootstrap(xds, url)["xds_servers"]
    assert server["channel_creds"] == [{"type": "insecure"}]


def test_a_joined_host_without_a_certificate_is_told_how_to_get_one(joined: Path) -> None:
    (joined / "client.pem").unlink()
    with pytest.raises(Invalid, match="join this host with a line of `adsum token invite"):
        grpc_bootstrap()


def test_own_files_need_no_joined_registry(tmp_path: Path) -> None:
    own = XdsCredentials(tmp_path / "a.pem")
    (server,) = grpc_bootstrap("10.0.0.5:1", credentials=own)["xds_servers"]
    assert server["channel_creds"][0]["config"] == {
        "ca_certificate_file": str(tmp_path / "a.pem"),
        "refresh_interval": "60s",
    }
