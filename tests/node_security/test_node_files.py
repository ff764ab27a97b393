"""What a secure node makes, what it keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.certificates.authority import AUTHORITY_LIFETIME, LIFETIMES, Authority, token_id_of
from adsum.certificates.expiry import certificate_life
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenRole, parse_token
from adsum.core.errors import Invalid
from adsum.node_security import node_files
from adsum.node_security.node_files import prepare_admin_token, prepare_files, read_admin_token, renew_files
from adsum.node_security.security_folder import SecurityFolder

NOW = 1_800_000_000.0
NAMES = ServerNames.of(["localhost", "127.0.0.1", "box"])
LIFE = LIFETIMES[TokenRole.NODE]


@pytest.fixture
def folder(tmp_path: Path) -> SecurityFolder:
    folder = SecurityFolder(tmp_path)
    folder.create()
    return folder


def _contents(folder: SecurityFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_the_first_start_makes_everything_and_the_second_nothing(folder: SecurityFolder) -> None:
    made = prepare_files(folder, "n1", NAMES, NOW)
    assert sorted(made.made) == ["authority.key", "authority.pem", "node.key", "node.pem"]
    assert made.authority.has_signed(made.pair.leaf)
    assert ServerNames.of_certificate(made.pair.leaf) == NAMES
    before = _contents(folder)
    again = prepare_files(folder, "n1", NAMES, NOW + 0.4 * LIFE)
    assert again.made == []
    assert again.pair == made.pair
    assert _contents(folder) == before


@pytest.mark.parametrize(
    ("names", "later", "reason"),
    [
        (ServerNames.of(["localhost", "127.0.0.1", "box", "10.0.0.9"]), 0.0, "a new address"),
        (ServerNames.of(["localhost", "127.0.0.1"]), 0.0, "a name that is gone"),
        (NAMES, 0.6 * LIFE, "half of its life"),
        (NAMES, 2 * LIFE, "it has expired"),
    ],
)
def test_a_certificate_that_is_no_longer_right_is_made_anew_with_the_same_key_and_token(
    folder: SecurityFolder, names: ServerNames, later: float, reason: str
) -> None:
    before = prepare_files(folder, "n1", NAMES, NOW)
    after = prepare_files(folder, "n1", names, NOW + later)
    assert after.made == ["node.pem"], reason
    assert after.pair.key == before.pair.key
    assert token_id_of(after.pair.leaf) == token_id_of(before.pair.leaf)
    assert ServerNames.of_certificate(after.pair.leaf) == names


@pytest.mark.parametrize("damaged", ["node.pem", "node.key", "authority.pem"])
def test_a_file_that_is_missing_is_made_again_and_the_authority_keeps_its_hash(
    folder: SecurityFolder, damaged: str
) -> None:
    before = prepare_files(folder, "n1", NAMES, NOW)
    folder.file(damaged).unlink()
    after = prepare_files(folder, "n1", NAMES, NOW)
    assert damaged in after.made
    assert after.authority.hash == before.authority.hash
    assert after.authority.has_signed(after.pair.leaf)


def test_a_node_certificate_of_another_authority_is_replaced(folder: SecurityFolder) -> None:
    prepare_files(folder, "n1", NAMES, NOW)
    key = new_key()
    chain = Authority.create(NOW).sign(
        create_request(key, "n1", NAMES.dns_names, NAMES.addresses),
        name="n1",
        token_id="f" * 16,
        role=TokenRole.NODE,
        now=NOW,
    )
    folder.write("node.key", encode_key(key))
    folder.write("node.pem", chain)
    after = prepare_files(folder, "n1", NAMES, NOW)
    assert after.made == ["node.pem"]
    assert token_id_of(after.pair.leaf) != "f" * 16


@pytest.mark.parametrize("name", ["authority.key", "authority.pem", "node.key"])
def test_a_file_with_something_else_is_refused_and_not_overwritten(folder: SecurityFolder, name: str) -> None:
    prepare_files(folder, "n1", NAMES, NOW)
    folder.file(name).write_bytes(b"something else")
    with pytest.raises(Invalid, match=name.replace("key", "(key|pem)")) as refused:
        prepare_files(folder, "n1", NAMES, NOW)
    assert refused.value.field == "data"
    assert folder.read(name) == b"something else"


def test_the_key_of_another_authority_is_refused(folder: SecurityFolder) -> None:
    prepare_files(folder, "n1", NAMES, NOW)
    folder.write("authority.key", encode_key(new_key()))
    with pytest.raises(Invalid, match="the key that belongs"):
        prepare_files(folder, "n1", NAMES, NOW)


def test_a_node_without_the_key_of_the_authority_keeps_its_certificate_and_needs_one(folder: SecurityFolder) -> None:
    made = prepare_files(folder, "n1", NAMES, NOW)
    folder.file("authority.key").unlink()
    later = prepare_files(folder, "n1", ServerNames.of(["other"]), NOW + 2 * LIFE)
    assert (later.made, later.pair) == ([], made.pair)
    with pytest.raises(Invalid, match="lacks the key"):
        renew_files(folder, "n1", NAMES, NOW)
    folder.file("node.pem").unlink()
    with pytest.raises(Invalid, match="adsum join"):
        prepare_files(folder, "n1", NAMES, NOW)


def test_one_command_mends_a_registry_whose_certificates_have_all_expired(folder: SecurityFolder) -> None:
    before = prepare_files(folder, "n1", NAMES, NOW)
    later = NOW + AUTHORITY_LIFETIME + 1.0
    assert prepare_files(folder, "n1", NAMES, later).pair == before.pair
    after = renew_files(folder, "n1", NAMES, later)
    assert sorted(after.made) == ["authority.pem", "node.pem"]
    assert after.authority.hash == before.authority.hash
    assert after.authority.expires == later + AUTHORITY_LIFETIME
    assert after.pair.key == before.pair.key
    assert certificate_life(after.pair.leaf, "node").expires == later + LIFE
    assert prepare_files(folder, "n1", NAMES, later).made == []


def test_a_certificate_of_another_key_is_not_installed(folder: SecurityFolder) -> None:
    made = prepare_files(folder, "n1", NAMES, NOW)
    chain = made.authority.sign(
        create_request(new_key(), "n1"), name="n1", token_id="f" * 16, role=TokenRole.NODE, now=NOW
    )
    with pytest.raises(Invalid, match="does not belong"):
        node_files.install_chain(folder, chain)
    assert node_files.load_pair(folder) == made.pair


def test_the_admin_token_is_made_once_and_again_when_it_is_missing_or_empty(folder: SecurityFolder) -> None:
    assert read_admin_token(folder) is None
    assert prepare_admin_token(folder)
    assert not prepare_admin_token(folder)
    first = read_admin_token(folder)
    content = folder.read("admin-token")
    assert content is not None
    assert first == parse_token(content.decode().rstrip("\n"))
    folder.file("admin-token").unlink()
    assert prepare_admin_token(folder)
    second = read_admin_token(folder)
    folder.write("admin-token", b"\n")
    assert prepare_admin_token(folder)
    assert len({first, second, read_admin_token(folder)}) == 3


@pytest.mark.parametrize("content", [b"something else", b"\xff\xfe", b"adsum_0_0", b"x" * 10_000])
def test_a_file_without_a_token_is_refused_without_its_content(folder: SecurityFolder, content: bytes) -> None:
    folder.write("admin-token", content)
    assert not prepare_admin_token(folder)
    with pytest.raises(Invalid, match="remove it") as refused:
        read_admin_token(folder)
    assert content.decode("latin-1") not in str(refused.value)
