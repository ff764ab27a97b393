"""The addresses at which hosts reach the nodes."""

from __future__ import annotations

import pytest

from adsum.access.registry_addresses import RegistryAddresses, registry_addresses


@pytest.mark.parametrize(
    ("urls", "xds", "peers", "reachable", "expected"),
    [
        (["https://10.0.0.5:1"], "", [], "", (["https://10.0.0.5:1"], ())),
        (["https://0.0.0.0:1"], "[::]:2", [], "10.0.0.5", (["https://10.0.0.5:1"], ["10.0.0.5:2"])),
        (["https://[::]:1"], "", [], "fd00::5", (["https://[fd00::5]:1"], ())),
        (["https://0.0.0.0:1"], "0.0.0.0:2", [], "", ([], [])),
        (["https://registry.example"], "", [], "", (["https://registry.example"], ())),
        (
            ["https://10.0.0.5:1"],
            "10.0.0.5:2",
            ["https://10.0.0.6:1", "https://10.0.0.5:1", "https://[fd00::7]:1"],
            "",
            (
                ["https://10.0.0.5:1", "https://10.0.0.6:1", "https://[fd00::7]:1"],
                ["10.0.0.5:2", "10.0.0.6:2", "[fd00::7]:2"],
            ),
        ),
    ],
)
def test_addresses_are_those_that_other_hosts_reach_with_this_node_first(
    urls: list[str], xds: str, peers: list[str], reachable: str, expected: tuple[list[str], list[str]]
) -> None:
    assert registry_addresses(urls, xds, peers, reachable) == RegistryAddresses(*expected)
