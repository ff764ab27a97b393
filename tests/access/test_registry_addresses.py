"""The addresses at which hosts reach the nodes."""

from __future__ import annotations

import pytest

from adsum.access.registry_addresses import RegistryAddresses, registry_addresses

HOST = ["127.0.0.1", "::1", "10.0.0.5", "fd00::5", "localhost", "*.example", "registry.example"]
"""The names of a certificate."""
REACHABLE = ["https://10.0.0.5:1", "https://[fd00::5]:1", "https://registry.example:1"]


@pytest.mark.parametrize(
    ("listen", "outbound", "expected"),
    [
        ("10.0.0.5:1", "", ["https://10.0.0.5:1"]),
        ("127.0.0.1:1", "10.0.0.5", ["https://127.0.0.1:1"]),
        ("0.0.0.0:1", "10.0.0.5", ["https://10.0.0.5:1"]),
        ("[::]:1", "fd00::5", ["https://[fd00::5]:1"]),
        ("0.0.0.0:1", "", REACHABLE),
        ("0.0.0.0:1", "10.9.9.9", REACHABLE),
        ("10.9.9.9:1", "", REACHABLE),
    ],
)
def test_a_node_is_reached_at_an_address_that_its_certificate_has(
    listen: str, outbound: str, expected: list[str]
) -> None:
    found = registry_addresses([listen], [], [], certified=HOST, outbound=outbound)
    assert found == RegistryAddresses(expected, [])


def test_an_advertised_url_replaces_all_listen_addresses() -> None:
    found = registry_addresses(
        ["0.0.0.0:1", "127.0.0.1:3"],
        ["0.0.0.0:2"],
        [],
        advertised="https://registry.example",
        certified=HOST,
        outbound="10.0.0.5",
    )
    assert found == RegistryAddresses(["https://registry.example"], ["registry.example:2"])


def test_peers_follow_each_once_and_are_taken_to_serve_xds_on_the_same_port() -> None:
    peers = ["https://10.0.0.6:1", "https://10.0.0.5:1", "https://[fd00::7]:1"]
    found = registry_addresses(["10.0.0.5:1"], ["10.0.0.5:2"], peers, certified=HOST)
    assert found.urls == ["https://10.0.0.5:1", "https://10.0.0.6:1", "https://[fd00::7]:1"]
    assert found.xds == ["10.0.0.5:2", "10.0.0.6:2", "[fd00::7]:2"]
    assert registry_addresses(["10.0.0.5:1"], [], peers, certified=HOST).xds == []


def test_a_certificate_without_a_fitting_name_gives_no_address() -> None:
    assert registry_addresses(["0.0.0.0:1"], [], [], certified=["localhost", "127.0.0.1"]) == RegistryAddresses([], [])
