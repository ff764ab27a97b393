"""The client certificate with which commands on the host of a node reach xDS."""

from __future__ import annotations

from pathlib import Path

import pytest

from adsum.certificates.authority import AUTHORITY_LIFETIME, LIFETIMES, Authority, token_id_of
from adsum.certificates.pairs import make_pair
from adsum.core.access.tokens import TokenParts, TokenRole
from adsum.node_security.operator_certificate import CERTIFICATE, KEY, prepare_operator_certificate
from adsum.node_security.security_folder import SecurityFolder

NOW = 1_800_000_000.0
TOKEN, OTHER = TokenParts("1" * 16, "s" * 43), TokenParts("2" * 16, "s" * 43)
LIFE = LIFETIMES[TokenRole.PLAIN]
AUTHORITY = Authority.create(NOW)


@pytest.fixture
def folder(tmp_path: Path) -> SecurityFolder:
    folder = SecurityFolder(tmp_path)
    folder.create()
    assert prepare_operator_certificate(folder, AUTHORITY, TOKEN, "admin@n1", NOW)
    return folder


def _files(folder: SecurityFolder) -> tuple[bytes, bytes]:
    chain, key = folder.read(CERTIFICATE), folder.read(KEY)
    assert chain is not None
    assert key is not None
    return chain, key


def test_it_stands_for_the_admin_token_and_only_its_owner_may_read_its_key(folder: SecurityFolder) -> None:
    pair = make_pair(*_files(folder))
    assert token_id_of(pair.leaf) == TOKEN.id
    assert AUTHORITY.has_signed(pair.leaf)
    assert folder.file(KEY).stat().st_mode & 0o777 == 0o600


def test_it_is_kept_for_half_of_its_life(folder: SecurityFolder) -> None:
    before = _files(folder)
    assert not prepare_operator_certificate(folder, AUTHORITY, TOKEN, "admin@n1", NOW + 0.4 * LIFE)
    assert _files(folder) == before
    assert prepare_operator_certificate(folder, AUTHORITY, TOKEN, "admin@n1", NOW + 0.5 * LIFE)
    chain, key = _files(folder)
    assert (chain != before[0], key) == (True, before[1])


def test_another_token_and_another_authority_get_another_certificate(folder: SecurityFolder) -> None:
    assert prepare_operator_certificate(folder, AUTHORITY, OTHER, "admin@n1", NOW)
    assert token_id_of(make_pair(*_files(folder)).leaf) == OTHER.id
    replaced = Authority.create(NOW)
    assert prepare_operator_certificate(folder, replaced, OTHER, "admin@n1", NOW)
    assert replaced.has_signed(make_pair(*_files(folder)).leaf)


@pytest.mark.parametrize("name", [CERTIFICATE, KEY])
@pytest.mark.parametrize("content", [None, b"", b"damaged"])
def test_a_damaged_file_is_made_again(folder: SecurityFolder, name: str, content: bytes | None) -> None:
    if content is None:
        folder.file(name).unlink()
    else:
        folder.file(name).write_bytes(content)
    assert prepare_operator_certificate(folder, AUTHORITY, TOKEN, "admin@n1", NOW)
    make_pair(*_files(folder))


def test_a_node_that_cannot_sign_leaves_it_alone(folder: SecurityFolder) -> None:
    before = _files(folder)
    without_key = Authority.load(AUTHORITY.certificate_pem())
    for authority, now in ((without_key, NOW), (AUTHORITY, NOW + AUTHORITY_LIFETIME)):
        assert not prepare_operator_certificate(folder, authority, OTHER, "admin@n1", now)
    assert _files(folder) == before
