"""`adsum grpc-bootstrap` with certificates of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from tests.cli.conftest import Adsum


def test_own_certificates_are_named_by_options_and_printed_as_absolute_paths(adsum: Adsum) -> None:
    result = adsum(
        "grpc-bootstrap", "--xds", "reg:1", "--xds-authority", "ca.pem", "--xds-cert", "own.pem", "--xds-key", "own.key"
    )
    assert result.code == 0, result.err
    (server,) = json.loads(result.out)["xds_servers"]
    config = server["channel_creds"][0]["config"]
    assert config["certificate_file"] == str(Path.cwd() / "own.pem")
    assert config["ca_certificate_file"] == str(Path.cwd() / "ca.pem")


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (("--xds-cert", "own.pem"), "--xds-key"),
        (("--xds-key", "own.key"), "--xds-cert"),
        (("--xds-cert", "own.pem", "--xds-key", "own.key"), "--xds-authority"),
    ],
)
def test_a_missing_file_is_named(adsum: Adsum, options: tuple[str, ...], missing: str) -> None:
    result = adsum("grpc-bootstrap", *options)
    assert result.code == 78
    assert f"{missing}: must be given together" in result.err


def test_nodes_with_tls_are_not_joined(adsum: Adsum) -> None:
    result = adsum("grpc-bootstrap", "--joined", "--xds", "10.0.0.1:1,10.0.0.2:1", "--xds-authority", "ca.pem")
    assert result.code == 78
    assert "without TLS" in result.err


def test_a_joined_host_without_a_certificate_is_told_what_to_do(
    adsum: Adsum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CredentialsFolder(tmp_path / "joined")
    folder.write(RegistryCredentials(("https://10.0.0.5:1",), xds=("10.0.0.5:2",), token="adsum_x"))
    monkeypatch.setenv("ADSUM_CREDENTIALS", str(folder.path))
    result = adsum("grpc-bootstrap")
    assert result.code == 78
    assert f"credentials: {folder.path} has no certificate" in result.err
    assert "--credentials" not in result.err, "there is no such option"


def test_a_host_that_has_not_joined_a_registry_with_tls_gets_the_way_on(adsum: Adsum) -> None:
    result = adsum("grpc-bootstrap", "--url", "https://10.0.0.5:23786")
    assert result.code == 0
    assert json.loads(result.out)["xds_servers"][0]["channel_creds"] == [{"type": "insecure"}]
    assert "`adsum join` on this host gets the certificate" in result.err
    assert adsum("grpc-bootstrap", "--url", "http://10.0.0.5:23786").err == ""
