"""The address at which an instance of this host is listed."""

from __future__ import annotations

import os

from adsum.client.local_address import ADDRESS_VARIABLE, is_local
from adsum.client.sources.source import Source


class InstanceAddress:
    """The given one, else that of `ADSUM_ADDRESS`, else the one of this host that faces the source.

    What was found stays while this host has it: on a host of several, the way to the next node is no reason to move.
    """

    def __init__(self, configured: str | None, source: Source) -> None:
        self._given = configured or os.environ.get(ADDRESS_VARIABLE) or ""
        self._source = source
        self._found = ""
        self._ours = False

    async def find(self) -> str:
        """Raises `RegistryUnavailable`."""
        if self._given:
            return self._given
        if not self._found or not is_local(self._found):
            self._found = await self._source.local_address()
            self._ours = is_local(self._found)  # A Consul agent may name one that only others know.
        return self._found

    @property
    def is_outdated(self) -> bool:
        """Whether this host had the one that was found, and has it no more."""
        return self._ours and not is_local(self._found)
