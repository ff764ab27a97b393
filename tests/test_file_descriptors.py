"""The limits of connections for a limit of descriptors."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.file_descriptors import RESERVED_DESCRIPTORS, ConnectionLimits, connection_limits


@pytest.mark.parametrize(
    ("limit", "fits"),
    [
        (sys.maxsize, ConnectionLimits(20_000, 12_000)),
        (65_536, ConnectionLimits(20_000, 12_000)),
        (20_000, ConnectionLimits(10_622, 6_374)),
        (1_024, ConnectionLimits(280, 168)),
        (64, ConnectionLimits(17, 11)),
        (1, ConnectionLimits(1, 1)),
    ],
)
def test_both_servers_share_the_connections_that_fit(limit: int, fits: ConnectionLimits) -> None:
    assert connection_limits(limit, http=20_000, grpc=12_000, probes=512) == fits


def test_without_gateways_http_gets_all_connections() -> None:
    assert connection_limits(1_024, http=20_000, grpc=0, probes=16) == ConnectionLimits(826, 0)


@given(st.integers(16, 1_000_000), st.integers(1, 1_000_000), st.integers(0, 20_000), st.integers(1, 65_536))
def test_connection_limits_are_within_the_descriptors_and_the_wanted_numbers(
    limit: int, http: int, grpc: int, probes: int
) -> None:
    fits = connection_limits(limit, http=http, grpc=grpc, probes=probes)
    assert 1 <= fits.http <= http
    assert min(1, grpc) <= fits.grpc <= max(1, grpc)
    assert fits.http + fits.grpc <= limit - min(RESERVED_DESCRIPTORS + probes, limit // 2) + 1
