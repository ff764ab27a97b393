"""Which folder is found, and for which nodes its credentials are used."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.certificates.authority import Authority
from adsum.client.credentials import find
from adsum.client.credentials.choice import choose_registry
from adsum.client.credentials.find import (
    are_nodes_of,
    candidate_folders,
    check_may_carry_secrets,
    find_credentials,
    join_folder,
    may_carry_secrets,
)
from adsum.client.credentials.folder import (
    MAX_AUTHORITY_BYTES,
    MAX_FILE_BYTES,
    CredentialsFolder,
    RegistryCredentials,
)
from adsum.core.addresses import is_loopback_host
from adsum.core.errors import Invalid
from tests.client.secure_node import TOKEN


def join_at(path: Path, name: str, url: str = "https://10.0.0.5:23786") -> None:
    CredentialsFolder(path).write(RegistryCredentials((url,), name=name, token=TOKEN))


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine without credentials."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}
    monkeypatch.setattr(find, "SYSTEM_FOLDER", tmp_path / "etc" / "registry")
    monkeypatch.setattr(find, "SYSTEM_OPERATOR_FOLDER", tmp_path / "var" / "operator")
    for name in ("ADSUM_CREDENTIALS", "ADSUM_TOKEN_FILE", "ADSUM_AUTHORITY_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return environ


def test_a_machine_that_has_not_joined_has_none(environ: dict[str, str]) -> None:
    assert find_credentials(environ) is None


def test_the_first_folder_that_can_be_read_is_found(environ: dict[str, str], tmp_path: Path) -> None:
    named = tmp_path / "named"
    places = [named, *candidate_folders(environ)]
    assert len(places) == 5
    for number in reversed(range(5)):
        join_at(places[number], f"host{number}")
        environ = {**environ, "ADSUM_CREDENTIALS": str(named)} if number == 0 else environ
        found = find_credentials(environ)
        assert found is not None
        assert found.name == f"host{number}"


def test_a_folder_that_this_user_may_not_read_is_passed_over(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = candidate_folders(environ)
    join_at(first, "first")
    join_at(second, "second")
    read = CredentialsFolder.read

    def refuse(folder: CredentialsFolder) -> RegistryCredentials:
        if folder.path == first:
            raise PermissionError(13, "Permission denied")
        return read(folder)

    monkeypatch.setattr(CredentialsFolder, "read", refuse)
    found = find_credentials(environ)
    assert found is not None
    assert found.name == "second"


def test_a_named_folder_that_can_not_be_read_is_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"ADSUM_CREDENTIALS: names a folder that can't be read: /nowhere: No such file"):
        find_credentials({**environ, "ADSUM_CREDENTIALS": "/nowhere"})


def test_a_join_writes_where_it_is_found_first(environ: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "config" / "adsum" / "registry"
    assert join_folder(environ, 1000) == own
    assert join_folder(environ, 0) == find.SYSTEM_FOLDER
    join_at(own, "own")
    assert join_folder(environ, 0) == own
    assert join_folder({**environ, "ADSUM_CREDENTIALS": "/named"}, 0) == Path("/named")


def test_a_client_without_addresses_uses_the_registry_that_the_host_joined(environ: dict[str, str]) -> None:
    assert choose_registry("", "ADSUM_URL") == (("http://127.0.0.1:23786",), None)
    join_at(candidate_folders(environ)[0], "web1")
    urls, credentials = choose_registry("", "ADSUM_URL")
    assert urls == ("https://10.0.0.5:23786",)
    assert credentials is not None
    assert credentials.headers(urls[0]) == {"Authorization": f"Bearer {TOKEN}"}


def test_the_token_of_the_host_is_only_for_the_nodes_of_its_registry(environ: dict[str, str]) -> None:
    join_at(candidate_folders(environ)[0], "web1")
    assert choose_registry("https://10.0.0.5:23786", "urls")[1] is not None
    for other in ("https://10.0.0.9:23786", "https://10.0.0.5:1", "http://10.0.0.5:23786", "http://127.0.0.1:23786"):
        assert choose_registry(other, "urls") == ((other,), None)
    both = ["https://10.0.0.5:23786", "https://10.0.0.9:23786"]
    assert choose_registry(both, "urls")[1] is None


@pytest.mark.parametrize("url", ["etcd://10.0.0.5:2379", "consul://10.0.0.5:8500"])
def test_other_sources_keep_their_own_credentials(environ: dict[str, str], url: str) -> None:
    join_at(candidate_folders(environ)[0], "web1")
    assert choose_registry(url, "urls") == ((url,), None)


def test_a_folder_that_is_given_must_fit_the_addresses(environ: dict[str, str], tmp_path: Path) -> None:
    join_at(tmp_path / "joined", "web1")
    with pytest.raises(Invalid, match=r"credentials: .* is for the nodes https://10.0.0.5:23786: omit `urls`"):
        choose_registry("https://10.0.0.9:1", "urls", credentials=tmp_path / "joined")
    urls, credentials = choose_registry("", "urls", credentials=tmp_path / "joined")
    assert urls == ("https://10.0.0.5:23786",)
    assert credentials is not None


def test_an_explicit_token_is_refused_over_plain_http_to_another_host(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "t").write_text(TOKEN)
    (tmp_path / "t").chmod(0o600)
    with pytest.raises(Invalid, match=r"urls: must be https://10.0.0.5:23786, not http://: a token is never sent"):
        choose_registry("http://10.0.0.5:23786", "urls", token_file=tmp_path / "t")
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://10.0.0.5:1"):
        credentials = choose_registry(url, "urls", token_file=tmp_path / "t")[1]
        assert credentials is not None
        assert credentials.headers(url)
        assert not credentials.headers("http://10.0.0.5:1")


def test_the_variables_name_files_too(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_TOKEN_FILE", str(tmp_path / "t"))
    with pytest.raises(Invalid, match=r"token_file: .*/t can't be read: No such file"):
        choose_registry("https://a:1", "urls")
    (tmp_path / "t").write_text(TOKEN)
    credentials = choose_registry("https://a:1", "urls")[1]
    assert credentials is not None
    assert credentials.origin == f"the token comes from {tmp_path / 't'}"


def test_an_exposed_token_file_is_used_with_a_warning(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "t").write_text(TOKEN)
    (tmp_path / "t").chmod(0o644)
    assert choose_registry("https://a:1", "urls", token_file=tmp_path / "t")[1] is not None
    assert "others than its owner may read it (mode 0644): chmod 600" in caplog.text
    assert TOKEN not in caplog.text


def test_wrong_files_are_refused_without_repeating_them(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "t").write_text("two words")
    with pytest.raises(Invalid, match=r"token_file: .*must be one line with a token") as raised:
        choose_registry("https://a:1", "urls", token_file=tmp_path / "t")
    assert "two words" not in str(raised.value)
    with pytest.raises(Invalid, match=r"authority_file: .*must be certificates in PEM"):
        choose_registry("https://a:1", "urls", authority_file=tmp_path / "t")


def test_a_bundle_of_authorities_may_have_comments_in_any_encoding(environ: dict[str, str], tmp_path: Path) -> None:
    bundle, pem = tmp_path / "bundle.pem", Authority.create(time.time()).certificate_pem()
    for comment in ("# Főtanúsítvány\n".encode(), "# Autorité\n".encode("latin-1")):
        bundle.write_bytes(comment + pem)
        credentials = choose_registry("https://a:1", "urls", authority_file=bundle)[1]
        assert credentials is not None
        assert len(credentials.make_ssl_context().get_ca_certs()) == 1


def test_a_bundle_of_all_public_authorities_is_read_and_a_huge_file_is_named_as_such(
    environ: dict[str, str], tmp_path: Path
) -> None:
    bundle, pem = tmp_path / "bundle.pem", Authority.create(time.time()).certificate_pem()
    bundle.write_bytes(pem + b"#" * 2 * MAX_FILE_BYTES)
    assert choose_registry("https://a:1", "urls", authority_file=bundle)[1] is not None
    bundle.write_bytes(pem + b"#" * MAX_AUTHORITY_BYTES)
    with pytest.raises(Invalid, match=r"authority_file: .*must have at most 1048576 bytes"):
        choose_registry("https://a:1", "urls", authority_file=bundle)


@given(st.text(max_size=60), st.sampled_from(["http://", "https://", ""]))
def test_no_text_breaks_the_decision_where_a_token_may_go(text: str, scheme: str) -> None:
    joined = RegistryCredentials(("https://10.0.0.5:23786",))
    are_nodes_of([scheme + text], joined)
    is_loopback_host(text)


@given(st.ip_addresses().filter(lambda address: not address.is_loopback))
def test_no_token_goes_in_clear_to_any_address_but_loopback(address: object) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)
    assert not may_carry_secrets(f"http://{host}:23786")
    with pytest.raises(Invalid):
        check_may_carry_secrets([f"http://{host}:23786"], "urls")


def test_names_that_look_like_loopback_are_not() -> None:
    for host in ("localhost.example", "127.0.0.1.example", "127.1", "0.0.0.0", "2130706433", ""):
        assert not is_loopback_host(host), host
