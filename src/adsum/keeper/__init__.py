"""The keeper: the loops that keep leases, checks, overrides and empty services."""

from adsum.keeper.keeper import Keeper

__all__ = ["Keeper"]
