"""The load balancing policies by name. To add one: write its file, add a line here, and pass the contract suite."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, cast

from adsum.balance.picker import Policy
from adsum.core.errors import AdsumError

POLICIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "round_robin": "adsum.balance.round_robin:RoundRobin",
        "weighted_random": "adsum.balance.weighted_random:WeightedRandom",
        "least_request": "adsum.balance.least_request:LeastRequest",
        "peak_ewma": "adsum.balance.peak_ewma:PeakEwma",
        "ring_hash": "adsum.balance.ring_hash:RingHash",
        "maglev": "adsum.balance.maglev:Maglev",
    }
)
"""Name of a policy → import path of its class, which is imported when the policy is chosen."""


class UnknownPolicy(AdsumError):
    """There is no policy of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no policy is named {name!r}; the policies are {', '.join(POLICIES)}")
        self.name = name


def policy(name: str) -> Policy:
    """Returns the policy of that name, with its default settings. Raises `UnknownPolicy`."""
    if name not in POLICIES:
        raise UnknownPolicy(name)
    module, _, class_name = POLICIES[name].partition(":")
    return cast("Policy", getattr(import_module(module), class_name)())
