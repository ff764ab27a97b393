"""Host addresses as text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import adsum
from adsum.core.addresses import format_host_port, is_ip_address


@pytest.mark.parametrize(
    ("address", "formatted"),
    [
        ("10.0.0.1", "10.0.0.1:80"),
        ("::1", "[::1]:80"),
        ("fd00::1:2", "[fd00::1:2]:80"),
        ("orders.test", "orders.test:80"),
    ],
)
def test_an_ipv6_address_stands_in_brackets_before_its_port(address: str, formatted: str) -> None:
    assert format_host_port(address, 80) == formatted


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("localhost", False),
        ("1host", False),
        ("10.0.0", False),
        ("", False),
    ],
)
def test_ip_addresses_are_distinguished_from_host_names(address: str, expected: bool) -> None:
    assert is_ip_address(address) is expected


def test_brackets_around_ipv6_addresses_are_written_in_one_place() -> None:
    for path in Path(adsum.__file__).parent.rglob("*.py"):
        if path.parts[-2:] != ("core", "addresses.py"):
            for node in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.IfExp)):
                is_bracketed = ast.unparse(node).startswith(("f'[{", "f'http://[{"))
                tests_a_colon = ast.unparse(node.test).startswith("':' in")
                assert not (is_bracketed and tests_a_colon), f"{path}:{node.lineno}: use format_host_port"
