"""The room of the loops that wait for time."""

from adsum.keeper.keeper import Keeper

__all__ = ["Keeper"]
