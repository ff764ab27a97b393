"""Sessions: streams and waiting requests that end when the caller's rights end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from adsum.core.access.principal import Principal

EXPIRY_INTERVAL: Final = 0.5
"""Seconds between two looks for sessions whose credentials have expired."""


class Sessions:
    """The open sessions of a node, by the id of the token that proves who the caller is."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` returns the time on the wall clock."""
        self._wall = wall
        self._by_token: dict[str, dict[Callable[[], None], None]] = {}
        self._expiring: dict[Callable[[], None], float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_token.values()))

    @contextmanager
    def open(self, principal: Principal, end: Callable[[], None]) -> Iterator[None]:
        """Calls `end` once if the rights of the principal end while the context is open."""
        members = self._by_token.setdefault(principal.token_id, {})
        members[end] = None
        if principal.expires is not None:
            self._expiring[end] = principal.expires
        try:
            yield
        finally:
            members.pop(end, None)
            self._expiring.pop(end, None)
            if not members and self._by_token.get(principal.token_id) is members:
                del self._by_token[principal.token_id]

    def end(self, token_ids: Iterable[str]) -> int:
        """Ends the sessions of these tokens. Returns how many."""
        ends = [end for id in token_ids for end in self._by_token.pop(id, ())]
        for end in ends:
            self._expiring.pop(end, None)
            end()
        return len(ends)

    async def run(self) -> None:
        """Ends sessions whose credentials expire, until cancelled."""
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL)
            if self._expiring:
                self.expire(self._wall())

    def expire(self, now: float) -> None:
        """Ends the sessions whose credentials have expired by `now`, on the wall clock."""
        for end in [end for end, expires in self._expiring.items() if expires <= now]:
            if self._expiring.pop(end, None) is not None:
                end()
