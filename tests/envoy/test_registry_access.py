"""Where a gateway reaches its registry over xDS, and with which files."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.client.credentials.xds import folder_credentials
from adsum.config.gateway import GatewayConfig
from adsum.core.errors import Invalid
from adsum.envoy.registry_access import node_access, registry_access
from tests.envoy.secure_registry import SecureRegistry

URL = "https://10.0.0.5:23786"
XDS = "10.0.0.5:24000"
NODE = ("10.0.0.5", 24000)


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credentials folder of this host."""
    path = SecureRegistry().join(tmp_path / "joined", xds=XDS, url=URL).path
    monkeypatch.setenv("ADSUM_CREDENTIALS", str(path))
    return path


@pytest.fixture
def not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADSUM_CREDENTIALS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_a_joined_host_follows_its_registry_at_the_addresses_that_it_has_got(joined: Path) -> None:
    assert registry_access(GatewayConfig(), URL) == ((NODE,), folder_credentials(joined))


def test_an_address_that_is_named_outranks_those(joined: Path) -> None:
    nodes, credentials = registry_access(GatewayConfig(xds="lb.example:23787, 10.0.0.6:1"), URL)
    assert nodes == (("lb.example", 23787), ("10.0.0.6", 1))
    assert credentials == folder_credentials(joined), "never in plain text"


@pytest.mark.parametrize("xds", ["127.0.0.1:23787", "localhost:23787", "[::1]:23787", "127.0.0.1:1,[::1]:2"])
@pytest.mark.usefixtures("joined")
def test_another_registry_on_loopback_is_followed_in_plain_text(xds: str) -> None:
    assert registry_access(GatewayConfig(xds=xds), URL)[1] is None


@pytest.mark.parametrize("url", ["http://10.0.0.5:23786", "https://10.0.0.6:23786", f"{URL},https://10.0.0.6:23786"])
@pytest.mark.usefixtures("joined")
def test_another_registry_gets_nothing_of_the_joined_one(url: str) -> None:
    nodes, credentials = registry_access(GatewayConfig(), url)
    assert credentials is None
    assert nodes[0][1] == 23787


@pytest.mark.usefixtures("not_joined")
def test_without_credentials_it_is_plain_text() -> None:
    assert registry_access(GatewayConfig(), "http://127.0.0.1:23786") == ((("127.0.0.1", 23787),), None)


@pytest.mark.usefixtures("joined")
def test_own_files_outrank_those_of_the_joined_registry() -> None:
    config = GatewayConfig(xds_authority="ca.pem", xds_cert="own.pem", xds_key="own.key")
    nodes, credentials = registry_access(config, URL)
    assert nodes == (NODE,)
    assert credentials is not None
    assert (credentials.authority, credentials.certificate, credentials.key, credentials.folder) == (
        Path.cwd() / "ca.pem",
        Path.cwd() / "own.pem",
        Path.cwd() / "own.key",
        None,
    )


@pytest.mark.parametrize(("given", "missing"), [("xds_cert", "xds_key"), ("xds_key", "xds_cert")])
def test_a_certificate_needs_its_key(given: str, missing: str) -> None:
    with pytest.raises(Invalid) as refused:
        GatewayConfig(**{given: "file"})  # type: ignore[arg-type]
    assert refused.value.field == missing


def test_the_gateway_of_a_node_has_the_folder_that_the_node_keeps(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    own = folder_credentials(folder)
    assert node_access(GatewayConfig(), NODE, folder, is_external=False) == ((NODE,), own)
    SecureRegistry().join(folder, xds="localhost:7")
    assert node_access(GatewayConfig(), NODE, folder, is_external=False) == ((("localhost", 7),), own)
    assert node_access(GatewayConfig(), NODE, None, is_external=False) == ((NODE,), None)


def test_beside_a_node_with_own_certificates_a_gateway_needs_one_too(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="xds_cert"):
        node_access(GatewayConfig(), NODE, tmp_path, is_external=True)
    config = GatewayConfig(xds="reg.example:1", xds_authority="ca.pem", xds_cert="own.pem", xds_key="own.key")
    nodes, credentials = node_access(config, NODE, tmp_path, is_external=True)
    assert nodes == (("reg.example", 1),)
    assert credentials is not None
    assert credentials.folder is None
