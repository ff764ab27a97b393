"""Estimates of memory, and sizes as text."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from adsum import wire
from adsum.core import sizes
from adsum.core.catalog.changes import Batch, Change
from adsum.core.catalog.decisions import Caller, register
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.errors import Invalid
from adsum.dialects.native.pages.service_json import ServiceJson

MANY = 60
SHAPES: dict[str, Callable[[int], dict[str, object]]] = {
    "plain": lambda n: {"metadata": {f"k{m}": f"{n}-{m}-".ljust(900, "x") for m in range(60)}},
    "wide": lambda n: {"metadata": {f"k{m}": f"{n}-{m}-".ljust(200, "\U0001f600") for m in range(60)}},
    "short": lambda n: {"metadata": {f"k{m}-{n}": f"{n}" for m in range(64)}, "tags": [f"t{m}-{n}" for m in range(64)]},
    "checks": lambda n: {
        "checks": [
            {"name": f"c{m}", "kind": "http", "headers": {f"X-{h}": f"{n}-{m}-{h}".ljust(700, "x") for h in range(8)}}
            for m in range(8)
        ]
    },
}


def _registered(shape: str, first: int) -> list[Change]:
    """`MANY` different registrations, each decoded from its own body."""
    changes = []
    for n in range(first, first + MANY):
        body = wire.decode(wire.encode({"port": 8000} | SHAPES[shape](n)), wire.RegistrationBody)
        registration = body.to_registration("orders", f"o{n}", f"10.0.0.{n + 1}")
        changes += register(registration, Caller("ann", 1.0))(EMPTY_SNAPSHOT)
    return changes


def _measured(shape: str, first: int) -> tuple[int, int]:
    """The memory of these registrations and their page: measured, and estimated."""
    tracemalloc.start()
    try:
        snapshot: Snapshot = EMPTY_SNAPSHOT.apply(Batch(1, _registered(shape, first)))
        page = ServiceJson("e", snapshot.service("orders"))
        gc.collect()
        measured, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(page.body) > 0
    return measured, snapshot.size


@pytest.mark.parametrize("shape", SHAPES)
def test_large_registrations_take_about_the_memory_that_is_counted(shape: str) -> None:
    _registered(shape, 0)  # Fills the caches.
    gc.collect()
    # A table of the whole process, such as that of interned texts, may grow during a measurement, but seldom twice.
    measured, counted = min(_measured(shape, MANY), _measured(shape, 2 * MANY))
    assert 0.6 * measured < counted < 2.0 * measured, measured / counted


@pytest.mark.parametrize(
    ("written", "size"), [("7", 7), ("1KiB", 1_024), ("512 MiB", 512 * 2**20), ("4GiB", 4 * 2**30), ("0", 0)]
)
def test_sizes_are_parsed(written: str, size: int) -> None:
    assert sizes.parse_size("max_catalog", written) == size


@pytest.mark.parametrize("written", ["", "many", "-1", "1.5GiB", "4GB", "4 TiB", "1" * 30, "٣"])
def test_other_text_is_refused_with_the_field(written: str) -> None:
    with pytest.raises(Invalid, match="max_catalog: must be a number of bytes, such as 512MiB"):
        sizes.parse_size("max_catalog", written)


def test_sizes_are_formatted_in_three_digits() -> None:
    texts = [sizes.format_size(size) for size in (0, 1_023, 1_024, 1_600 * 1_024, 2**31)]
    assert texts == ["0 bytes", "1023 bytes", "1 KiB", "1.56 MiB", "2 GiB"]
