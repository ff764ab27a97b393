"""The files of a node that joined a registry."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from adsum.certificates.authority import AUTHORITY_LIFETIME, Authority
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid
from adsum.node_security.joined_node import install_renewed, read_node_token, write_joined_node
from adsum.node_security.node_files import prepare_files
from adsum.node_security.security_folder import SecurityFolder

NOW = 1_800_000_000.0
NAMES = ServerNames.of(["localhost", "10.0.0.6"])
TOKEN = f"adsum_{'0' * 16}_{'A' * 43}"
KEY = new_key()


def _folder(path: Path) -> SecurityFolder:
    folder = SecurityFolder(path)
    folder.create()
    return folder


def _chain(authority: Authority, now: float = NOW) -> str:
    request = create_request(KEY, "n2", NAMES.dns_names, NAMES.addresses)
    return authority.sign(request, name="n2", token_id="0" * 16, role=TokenRole.NODE, now=now).decode()


def _join(folder: SecurityFolder, authority: Authority, signer: Authority | None = None) -> None:
    chain, key = _chain(signer or authority), encode_key(KEY).decode()
    write_joined_node(folder, authority.certificate_pem().decode(), chain, key, TOKEN)


@pytest.fixture
def authority() -> Authority:
    return Authority.create(NOW)


def test_a_joined_node_starts_with_what_the_join_wrote_and_makes_nothing(tmp_path: Path, authority: Authority) -> None:
    folder = _folder(tmp_path)
    _join(folder, authority)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()} == {
        "authority.pem": 0o600,
        "node.pem": 0o600,
        "node.key": 0o600,
        "node-token": 0o600,
    }
    files = prepare_files(folder, "n2", NAMES, NOW)
    assert files.made == []
    assert not files.authority.can_sign
    assert read_node_token(folder) == TOKEN


def test_a_node_that_joins_again_replaces_its_files(tmp_path: Path, authority: Authority) -> None:
    folder = _folder(tmp_path)
    _join(folder, Authority.create(NOW))
    _join(folder, authority)
    assert prepare_files(folder, "n2", NAMES, NOW).authority.hash == authority.hash


def test_a_join_keeps_the_key_of_another_authority_and_writes_nothing(tmp_path: Path, authority: Authority) -> None:
    folder = _folder(tmp_path)
    own = prepare_files(folder, "n1", NAMES, NOW)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(Invalid, match="the key of the authority of another registry"):
        _join(folder, authority)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    _join(folder, own.authority)


def test_a_certificate_of_another_authority_is_not_written(tmp_path: Path, authority: Authority) -> None:
    folder = _folder(tmp_path)
    with pytest.raises(Invalid, match="did not sign"):
        _join(folder, authority, signer=Authority.create(NOW))
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"s3cret", b"\xff", TOKEN.encode()[:-1], TOKEN.encode() * 9])
def test_a_wrong_node_token_is_refused_without_being_repeated(tmp_path: Path, content: bytes) -> None:
    folder = _folder(tmp_path)
    with pytest.raises(Invalid, match="node-token is missing"):
        read_node_token(folder)
    folder.write("node-token", content)
    with pytest.raises(Invalid, match="adsum token invite --for node") as caught:
        read_node_token(folder)
    assert "s3cret" not in str(caught.value)
    assert "AAAA" not in str(caught.value)


def test_a_renewed_certificate_and_authority_are_taken_over(tmp_path: Path, authority: Authority) -> None:
    folder = _folder(tmp_path)
    _join(folder, authority)
    later = NOW + 0.9 * AUTHORITY_LIFETIME
    renewed = authority.renewed(later)
    install_renewed(folder, renewed.certificate_pem(), _chain(renewed, later).encode())
    files = prepare_files(folder, "n2", NAMES, later)
    assert files.authority.expires == renewed.expires
    assert files.pair.leaf.not_valid_after_utc.timestamp() > later


def test_an_older_certificate_of_the_authority_does_not_replace_a_newer_one(
    tmp_path: Path, authority: Authority
) -> None:
    folder = _folder(tmp_path)
    _join(folder, authority.renewed(NOW + 9.0))
    install_renewed(folder, authority.certificate_pem(), _chain(authority).encode())
    assert prepare_files(folder, "n2", NAMES, NOW).authority.expires == authority.expires + 9.0


def test_what_does_not_fit_keeps_the_old_certificates(tmp_path: Path, authority: Authority) -> None:
    folder = _folder(tmp_path)
    _join(folder, authority)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    stranger = Authority.create(NOW)
    other_key = create_request(new_key(), "n2")
    foreign = authority.sign(other_key, name="n2", token_id="0" * 16, role=TokenRole.NODE, now=NOW)
    for root, chain in (
        (stranger.certificate_pem(), _chain(stranger).encode()),
        (authority.certificate_pem(), _chain(stranger).encode()),
        (authority.certificate_pem(), foreign),
        (authority.certificate_pem(), b"nonsense"),
        (b"nonsense", _chain(authority).encode()),
    ):
        with pytest.raises(Invalid):
            install_renewed(folder, root, chain)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
