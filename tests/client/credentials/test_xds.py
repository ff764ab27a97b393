"""The xDS addresses and files of a host that has joined a registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.client.credentials.xds import (
    XdsCredentials,
    find_joined_registry,
    folder_credentials,
    joined_xds_credentials,
)
from adsum.core.errors import Invalid
from tests.client.secure_node import TOKEN

XDS = "10.0.0.5:23787"


def join_at(path: Path, certificate: str = "", token: str = TOKEN) -> RegistryCredentials:
    credentials = RegistryCredentials(("https://10.0.0.5:23786",), xds=(XDS,), authority="authority", token=token)
    CredentialsFolder(path).write(credentials, certificate, "key" if certificate else "")
    return CredentialsFolder(path).read()


@pytest.fixture
def joined(tmp_path: Path) -> RegistryCredentials:
    return join_at(tmp_path / "registry", "certificate")


def test_a_host_that_has_joined_speaks_tls_with_the_files_of_its_folder(joined: RegistryCredentials) -> None:
    folder = joined.folder
    assert folder is not None
    found = joined_xds_credentials([XDS], joined)
    assert found == XdsCredentials(folder / "authority.pem", folder / "client.pem", folder / "client.key", folder)
    assert found == folder_credentials(folder)


def test_a_host_that_has_not_joined_speaks_plain_text() -> None:
    assert joined_xds_credentials([XDS], None) is None


@pytest.mark.parametrize("address", ["127.0.0.1:23787", "[::1]:23787", "localhost:23787"])
def test_another_registry_on_this_host_is_reached_in_plain_text(joined: RegistryCredentials, address: str) -> None:
    assert joined_xds_credentials([address], joined) is None
    assert joined_xds_credentials([XDS, address], joined) is not None, "the joined registry is on the network"


def test_the_joined_registry_is_never_reached_in_plain_text(tmp_path: Path) -> None:
    credentials = RegistryCredentials(("https://localhost:23786",), xds=("localhost:23787",), token=TOKEN)
    CredentialsFolder(tmp_path / "joined").write(credentials, "certificate", "key")
    joined = CredentialsFolder(tmp_path / "joined").read()
    for addresses in ([], ["localhost:23787"], ["localhost:23787", "127.0.0.1:1"]):
        assert joined_xds_credentials(addresses, joined) is not None


@pytest.mark.parametrize("address", ["10.0.0.9:23787", "[fd00::1]:23787", "registry.example.com:23787"])
def test_no_address_on_the_network_is_reached_in_plain_text(joined: RegistryCredentials, address: str) -> None:
    for addresses in ([address], [XDS, address], ["127.0.0.1:23787", address]):
        assert joined_xds_credentials(addresses, joined) is not None


def test_a_host_without_a_certificate_learns_how_to_get_one(tmp_path: Path) -> None:
    joined = join_at(tmp_path / "registry")
    with pytest.raises(Invalid, match=r"registry has no certificate, .*`adsum token invite --for gateway`"):
        joined_xds_credentials([XDS], joined)


def test_a_caller_that_gets_a_certificate_by_its_token_may_lack_one(tmp_path: Path) -> None:
    joined = join_at(tmp_path / "registry")
    assert joined_xds_credentials([XDS], joined, may_lack_certificate=True) is not None
    without_token = join_at(tmp_path / "other", token="")
    with pytest.raises(Invalid, match="has no certificate"):
        joined_xds_credentials([XDS], without_token, may_lack_certificate=True)


def test_the_credentials_are_only_for_the_registry_that_the_host_joined(
    joined: RegistryCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_CREDENTIALS", str(joined.folder))
    assert find_joined_registry() == joined
    assert find_joined_registry("https://10.0.0.5:23786") == joined
    assert find_joined_registry("https://10.0.0.9:23786") is None
    assert find_joined_registry("https://10.0.0.5:23786,https://10.0.0.9:23786") is None
