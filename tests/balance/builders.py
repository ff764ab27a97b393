"""Builds candidates and pickers, and counts picks, for the tests of load balancing."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import Picker
from adsum.balance.policies import policy
from adsum.core.model import Endpoint, Instance
from adsum.core.weighted_endpoints import WeightedEndpoint


def choices(*weights: float) -> list[WeightedEndpoint]:
    """Returns one choice per weight, with the ids i-000, i-001 …"""
    return [choice(f"i-{index:03}", weight) for index, weight in enumerate(weights)]


def choice(id: str, weight: float = 1.0) -> WeightedEndpoint:
    return WeightedEndpoint(Endpoint(Instance("orders", id, "10.0.0.1", 80)), weight)


def build(name: str, candidates: Sequence[WeightedEndpoint], seed: int = 1, previous: Picker | None = None) -> Picker:
    return policy(name).build(candidates, LoadTracker(), Random(seed), previous)


def picks(picker: Picker, count: int, **options: object) -> list[str]:
    """Returns the ids of `count` picks, each with its own key."""
    return [picker.pick(f"key-{index}", **options).id for index in range(count)]  # type: ignore[arg-type]
