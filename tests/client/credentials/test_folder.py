"""The credentials folder: what is written is read again, and wrong or exposed files are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.client.credentials.folder import (
    MAX_TOKEN_TEXT,
    CredentialsFolder,
    RegistryCredentials,
    exposure,
    parse_registry_file,
    parse_token_file,
)
from adsum.core.errors import Invalid
from tests.client.secure_node import TOKEN

JOINED = RegistryCredentials(
    urls=("https://10.0.0.5:23786", "https://10.0.0.6:23786"),
    name="web1",
    role="client",
    xds=("10.0.0.5:23787",),
    authority="-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
    authority_hash="ab" * 32,
    token=TOKEN,
)


@pytest.fixture
def folder(tmp_path: Path) -> CredentialsFolder:
    written = CredentialsFolder(tmp_path / "adsum" / "registry")
    written.write(JOINED, "certificate", "key")
    return written


def test_what_is_written_is_read_again(folder: CredentialsFolder) -> None:
    read = folder.read()
    assert (read.urls, read.name, read.role, read.xds) == (JOINED.urls, "web1", "client", JOINED.xds)
    assert (read.authority, read.authority_hash, read.token) == (JOINED.authority, JOINED.authority_hash, TOKEN)
    assert read.certificate is not None
    assert read.key is not None
    assert (read.certificate.read_text(), read.key.read_text()) == ("certificate", "key")


def test_only_the_owner_may_read_the_folder_and_its_files(folder: CredentialsFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.path.iterdir()}
    assert modes == dict.fromkeys(["registry.json", "authority.pem", "token", "client.pem", "client.key"], 0o600)


def test_the_folder_above_is_open_to_those_who_get_the_credentials_or_read_settings_there(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        CredentialsFolder(tmp_path / "etc" / "adsum" / "registry").write(JOINED)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "etc" / "adsum").stat().st_mode) == 0o755


def test_a_second_write_replaces_the_folder_as_a_whole(folder: CredentialsFolder) -> None:
    folder.write(RegistryCredentials(("https://10.0.0.7:1",), token=TOKEN))
    read = folder.read()
    assert (read.urls, read.certificate, read.authority) == (("https://10.0.0.7:1",), None, "")
    assert [entry.name for entry in folder.path.parent.iterdir()] == ["registry"]


def test_a_failed_write_leaves_the_folder_before_it(folder: CredentialsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adsum.client.credentials.folder.write_private_file", fail)
    with pytest.raises(OSError, match=r"No space"):
        folder.write(RegistryCredentials(("https://10.0.0.7:1",)))
    assert folder.read().urls == JOINED.urls
    assert [entry.name for entry in folder.path.parent.iterdir()] == ["registry"]


def test_a_mounted_folder_gets_its_files_one_by_one(folder: CredentialsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self == folder.path)
    folder.write(RegistryCredentials(("https://10.0.0.7:1",), token=TOKEN))
    assert sorted(file.name for file in folder.path.iterdir()) == ["registry.json", "token"]
    assert folder.read().urls == ("https://10.0.0.7:1",)


@pytest.mark.parametrize("name", ["token", "client.key"])
def test_a_secret_that_others_may_read_is_refused(folder: CredentialsFolder, name: str) -> None:
    (folder.path / name).chmod(0o644)
    with pytest.raises(Invalid, match=rf"{name}: others than its owner may read it .mode 0644.: chmod 600"):
        folder.read()


def test_only_files_of_the_user_itself_are_judged() -> None:
    assert not exposure(0o100600, 5, 5)
    assert exposure(0o100640, 5, 5)
    assert exposure(0o100602, 5, 5)
    assert not exposure(0o100644, 0, 5)


def test_a_folder_of_a_later_format_is_refused(folder: CredentialsFolder) -> None:
    (folder.path / "registry.json").write_text('{"version": 2, "urls": ["https://a:1"]}')
    with pytest.raises(Invalid, match=r"registry.json: version: must be at most 1, not 2: upgrade Adsum here"):
        folder.read()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version": 1, "urls": []}',
        b'{"version": 1, "urls": ["u"], "authority_hash": "x"}',
        b"\xff",
    ],
)
def test_a_wrong_registry_file_is_refused_with_its_path(folder: CredentialsFolder, content: bytes) -> None:
    (folder.path / "registry.json").write_bytes(content)
    with pytest.raises(Invalid, match=rf"{folder.path}/registry.json: "):
        folder.read()


def test_unknown_fields_of_a_later_version_are_ignored() -> None:
    assert parse_registry_file(b'{"version": 1, "urls": ["https://a:1"], "later": 1}').urls == ["https://a:1"]


def test_the_representation_hides_the_token() -> None:
    assert TOKEN not in repr(JOINED)
    assert TOKEN[-20:] not in repr(JOINED)


def test_a_token_file_has_one_line() -> None:
    assert parse_token_file(f"{TOKEN}\n".encode()) == TOKEN
    for wrong in (b"", b"\n", b"a b", b"a\nb", b"\xff", b"\x1b[1m", b"x" * (MAX_TOKEN_TEXT + 1)):
        with pytest.raises(Invalid):
            parse_token_file(wrong)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_token_file_or_are_refused_without_repeating_them(content: bytes) -> None:
    try:
        token = parse_token_file(content)
    except Invalid as error:
        token, problem = "", str(error)
    else:
        problem = ""
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert bool(token) != bool(problem)
    assert len(problem) < 120


@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f'{{"version": 1, "urls": ["{text}"]}}'.encode())
)
def test_any_bytes_are_a_registry_file_or_are_refused(content: bytes) -> None:
    try:
        record = parse_registry_file(content)
    except Invalid:
        return
    assert record.urls


def test_the_folder_is_read_without_a_token_and_without_an_authority(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text('{"version": 1, "urls": ["https://a:1"]}')
    read = CredentialsFolder(tmp_path).read()
    assert (read.token, read.authority, read.certificate) == ("", "", None)


def test_a_huge_file_is_refused(folder: CredentialsFolder) -> None:
    os.truncate(folder.path / "token", 10_000_000)
    with pytest.raises(Invalid, match=r"token: must have at most"):
        folder.read()
