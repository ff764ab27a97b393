"""The credentials of commands on the host of a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenParts
from adsum.node_security.operator_folder import local_address, write_operator_folder
from adsum.node_security.security_folder import SecurityFolder

TOKEN = TokenParts("0" * 16, "s" * 43)


def test_the_folder_says_where_the_node_is_and_has_its_admin_token(tmp_path: Path) -> None:
    folder = SecurityFolder(tmp_path)
    folder.create()

    def write(urls: list[str]) -> bool:
        return write_operator_folder(folder, TOKEN, "admin@n1", urls, ["127.0.0.1:2"], b"PEM", "a" * 64)

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
