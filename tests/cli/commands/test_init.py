"""`adsum init` makes what a secure node needs, keeps what is there, and shows no secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adsum.node_security.security_folder import SecurityFolder
from tests.cli.conftest import Adsum

FILES = {"admin-token", "authority.key", "authority.pem", "node.key", "node.pem"}


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "security").iterdir()}


def test_init_makes_the_files_and_names_the_next_command(adsum: Adsum, tmp_path: Path) -> None:
    result = adsum("init", "--data", str(tmp_path), "--tls-name", "registry.example", "--node", "n1")
    assert result.code == 0
    contents = _contents(tmp_path)
    assert set(contents) == FILES
    assert str(tmp_path / "security") in result.out
    assert "registry.example" in result.out
    assert re.search(r"its hash is [0-9a-f]{64}$", result.out, re.MULTILINE)
    assert f"the admin token is in {tmp_path}/security/admin-token" in result.out
    assert result.out.splitlines()[-1] == (
        f"next: adsum serve --secure --listen 0.0.0.0:23786 --xds 0.0.0.0:23787 --data {tmp_path} --node n1 "
        "--tls-name registry.example"
    )
    for secret in ("admin-token", "authority.key", "node.key"):
        assert contents[secret].decode().splitlines()[-1][-20:] not in result.out


def test_init_again_keeps_everything_even_without_its_flags(adsum: Adsum, tmp_path: Path) -> None:
    adsum("init", "--data", str(tmp_path), "--tls-name", "registry.example")
    before = _contents(tmp_path)
    result = adsum("init", "--data", str(tmp_path))
    assert result.code == 0
    assert "already" in result.out
    assert "registry.example" in result.out
    assert _contents(tmp_path) == before


def test_init_renew_signs_anew_with_the_same_keys(adsum: Adsum, tmp_path: Path) -> None:
    first = adsum("init", "--data", str(tmp_path), "--tls-name", "registry.example")
    before = _contents(tmp_path)
    result = adsum("init", "--renew", "--data", str(tmp_path))
    assert result.code == 0
    after = _contents(tmp_path)
    assert {name for name in FILES if before[name] != after[name]} == {"authority.pem", "node.pem"}
    assert "registry.example" in result.out
    hashes = [re.findall(r"[0-9a-f]{64}", output.out) for output in (first, result)]
    assert hashes[0] == hashes[1]


def test_init_uses_the_settings_of_the_file(adsum: Adsum, tmp_path: Path) -> None:
    file = tmp_path / "adsum.toml"
    file.write_text(f'[serve]\nlisten = "0.0.0.0:9"\nxds = "off"\nstore = "sqlite:///{tmp_path}/db/adsum.db"\n')
    result = adsum("init", "--config", str(file))
    assert result.code == 0
    assert set(_contents(tmp_path / "db")) == FILES
    assert result.out.splitlines()[-1] == "next: adsum serve --secure"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--data", "/dev/null/x"), "--data: must be a folder that this user may use"),
        (("--tls-name", "*.example"), "--tls-name: must be an IP address or a host name"),
    ],
)
def test_what_init_cannot_use_is_an_error_of_the_setting(adsum: Adsum, args: tuple[str, ...], words: str) -> None:
    result = adsum("init", *args)
    assert result.code == 78
    assert words in result.err


def test_init_is_not_for_own_certificates(adsum: Adsum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA"):
        monkeypatch.setenv(f"ADSUM_{name}", "/x.pem")
    result = adsum("init", "--data", str(tmp_path))
    assert result.code == 78
    assert "nothing to make" in result.err


def test_a_damaged_key_is_an_error_and_stays(adsum: Adsum, tmp_path: Path) -> None:
    adsum("init", "--data", str(tmp_path))
    (tmp_path / "security" / "authority.key").write_bytes(b"damaged")
    result = adsum("init", "--data", str(tmp_path))
    assert result.code == 78
    assert (tmp_path / "security" / "authority.key").read_bytes() == b"damaged"


def test_a_new_authority_replaces_everything_but_not_under_a_running_node(adsum: Adsum, tmp_path: Path) -> None:
    adsum("init", "--data", str(tmp_path), "--tls-name", "registry.example")
    before = _contents(tmp_path)
    folder = SecurityFolder(tmp_path)
    folder.lock()
    refused = adsum("init", "--new-authority", "--data", str(tmp_path))
    assert refused.code != 0
    assert "a node uses" in refused.err
    assert "stop it" in refused.err
    folder.unlock()
    assert {name: content for name, content in _contents(tmp_path).items() if name != "lock"} == before
    result = adsum("init", "--new-authority", "--data", str(tmp_path))
    assert result.code == 0, result.err
    after = _contents(tmp_path)
    assert set(after) == {*FILES, "lock", "new-authority"}
    assert all(after[name] != before[name] for name in FILES)
    assert after["new-authority"].decode() in result.out, "it is the hash"
    assert "registry.example" in result.out
    both = adsum("init", "--new-authority", "--renew", "--data", str(tmp_path))
    assert (both.code, "choose one" in both.err) == (2, True)
    assert _contents(tmp_path) == after
