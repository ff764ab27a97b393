"""The credentials of the operator and the gateway on the host of a node."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from adsum.certificates.authority import AUTHORITY_LIFETIME, LIFETIMES, Authority, token_id_of
from adsum.certificates.pairs import KeyPair, make_pair
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenParts, TokenRole
from adsum.node_security.local_credentials import LocalCredentials, RegistryDescription, local_address
from adsum.node_security.security_folder import SecurityFolder

NOW = 1_800_000_000.0
TOKEN = TokenParts("0" * 16, "s" * 43)


@pytest.fixture
def folder(tmp_path: Path) -> SecurityFolder:
    folder = SecurityFolder(tmp_path)
    folder.create()
    return folder


def test_the_folder_says_where_the_node_is_and_has_its_token(folder: SecurityFolder) -> None:
    operator = LocalCredentials(folder, "operator", "operator", "admin@n1")

    def write(urls: list[str]) -> bool:
        return operator.write(TOKEN, RegistryDescription(urls, ["127.0.0.1:2"], b"PEM", "a" * 64))

    assert write(["https://127.0.0.1:1"])
    assert not write(["https://127.0.0.1:1"])
    assert json.loads(folder.file("operator/registry.json").read_text()) == {
        "version": 1,
        "role": "operator",
        "name": "admin@n1",
        "urls": ["https://127.0.0.1:1"],
        "xds": ["127.0.0.1:2"],
        "authority_hash": "a" * 64,
    }
    assert folder.file("operator/token").read_text() == f"adsum_{'0' * 16}_{'s' * 43}\n"
    assert folder.file("operator/authority.pem").read_bytes() == b"PEM"
    assert write(["https://127.0.0.1:9"])


def test_a_token_is_made_once_and_again_if_it_can_not_be_read(folder: SecurityFolder) -> None:
    gateway = LocalCredentials(folder, "gateway", "gateway", "gateway@n1")
    first = gateway.keep_token()
    assert gateway.keep_token() == first
    for content in (b"", b"nonsense", b"\xff\xfe", b"adsum_1_2"):
        folder.write("gateway/token", content)
        assert gateway.keep_token() != first
    assert stat.S_IMODE(folder.file("gateway/token").stat().st_mode) == 0o600


def test_a_certificate_is_signed_anew_at_half_of_its_life_with_the_same_key(folder: SecurityFolder) -> None:
    authority, gateway = Authority.create(NOW), LocalCredentials(folder, "gateway", "gateway", "gateway@n1")
    half = LIFETIMES[TokenRole.GATEWAY] / 2
    assert gateway.keep_certificate(authority, TOKEN.id, TokenRole.GATEWAY, NOW)
    pair, key = read_pair(folder), folder.read("gateway/client.key")
    assert authority.has_signed(pair.leaf)
    assert token_id_of(pair.leaf) == TOKEN.id
    assert not gateway.keep_certificate(authority, TOKEN.id, TokenRole.GATEWAY, NOW + half - 7_200.0)
    assert gateway.keep_certificate(authority, TOKEN.id, TokenRole.GATEWAY, NOW + half + 1.0)
    assert read_pair(folder).leaf.serial_number != pair.leaf.serial_number
    assert folder.read("gateway/client.key") == key


@pytest.mark.parametrize("name", ["client.pem", "client.key"])
@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_damaged_certificate_or_key_is_made_again(folder: SecurityFolder, name: str, content: bytes | None) -> None:
    authority, gateway = Authority.create(NOW), LocalCredentials(folder, "gateway", "gateway", "gateway@n1")
    gateway.keep_certificate(authority, TOKEN.id, TokenRole.GATEWAY, NOW)
    if content is None:
        folder.file(f"gateway/{name}").unlink()
    else:
        folder.write(f"gateway/{name}", content)
    assert gateway.keep_certificate(authority, TOKEN.id, TokenRole.GATEWAY, NOW)
    assert authority.has_signed(read_pair(folder).leaf)
    assert stat.S_IMODE(folder.file("gateway/client.key").stat().st_mode) == 0o600


def test_another_token_and_another_authority_get_another_certificate(folder: SecurityFolder) -> None:
    operator = LocalCredentials(folder, "gateway", "operator", "admin@n1")
    operator.keep_certificate(Authority.create(NOW), TOKEN.id, TokenRole.PLAIN, NOW)
    replaced = Authority.create(NOW)
    assert operator.keep_certificate(replaced, TOKEN.id, TokenRole.PLAIN, NOW)
    assert replaced.has_signed(read_pair(folder).leaf)
    assert operator.keep_certificate(replaced, "2" * 16, TokenRole.PLAIN, NOW)
    assert token_id_of(read_pair(folder).leaf) == "2" * 16


def test_a_node_that_cannot_sign_leaves_the_certificate_alone(folder: SecurityFolder) -> None:
    authority, gateway = Authority.create(NOW), LocalCredentials(folder, "gateway", "gateway", "gateway@n1")
    gateway.keep_certificate(authority, TOKEN.id, TokenRole.GATEWAY, NOW)
    before = read_pair(folder)
    without_key = Authority.load(authority.certificate_pem())
    for found, now in ((without_key, NOW), (authority, NOW + AUTHORITY_LIFETIME)):
        assert not gateway.keep_certificate(found, "2" * 16, TokenRole.GATEWAY, now)
    assert read_pair(folder) == before


def read_pair(folder: SecurityFolder) -> KeyPair:
    return make_pair(folder.read("gateway/client.pem") or b"", folder.read("gateway/client.key") or b"")


@pytest.mark.parametrize(
    ("listen", "names", "expected"),
    [
        ("0.0.0.0:1", ["127.0.0.1", "localhost"], "127.0.0.1:1"),
        ("[::]:1", ["127.0.0.1"], "127.0.0.1:1"),
        ("10.0.0.5:1", ["10.0.0.5"], "10.0.0.5:1"),
        ("[fd00::5]:1", ["fd00::5"], "[fd00::5]:1"),
        ("0.0.0.0:1", ["registry.example"], "registry.example:1"),
        ("0.0.0.0:1", ["a.example", "localhost"], "localhost:1"),
        ("10.0.0.5:1", ["localhost", "registry.example"], "localhost:1"),
        ("10.0.0.5:1", [], "10.0.0.5:1"),
        ("registry.example:1", ["other.example"], "registry.example:1"),
    ],
)
def test_callers_on_the_host_use_a_name_that_the_certificate_has(listen: str, names: list[str], expected: str) -> None:
    assert local_address(listen, ServerNames.of(names)) == expected
