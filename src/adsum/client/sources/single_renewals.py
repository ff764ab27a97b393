"""Renews leases at a source that takes one lease per request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from adsum.wire import LeaseBody, LostLease

MAX_CONCURRENT_RENEWALS: Final = 16
"""Renewals that are under way at once; further ones wait."""

LossReason = Literal["unknown", "superseded"]
"""The reason of a `LostLease`."""


async def renew_singly(
    leases: Sequence[LeaseBody], renew: Callable[[LeaseBody], Awaitable[LossReason | None]], node_timeout: float
) -> list[LostLease]:
    """Renews each lease by `renew`, which returns the reason if the lease is lost, and None otherwise.

    Returns the leases that are lost. Raises what `renew` raises, and `TimeoutError` after `2 * node_timeout` seconds,
    at least one second.
    """
    lost: list[LostLease] = []
    async with asyncio.timeout(max(1.0, 2 * node_timeout)):
        for start in range(0, len(leases), MAX_CONCURRENT_RENEWALS):
            batch = leases[start : start + MAX_CONCURRENT_RENEWALS]
            reasons = await asyncio.gather(*map(renew, batch))
            results = zip(batch, reasons, strict=True)
            lost += [LostLease(lease.service, lease.id, reason) for lease, reason in results if reason]
    return lost
