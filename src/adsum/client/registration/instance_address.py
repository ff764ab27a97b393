"""The address at which an instance on this host is listed."""

from __future__ import annotations

import os

from adsum.client.local_address import ADDRESS_VARIABLE, is_local
from adsum.client.sources.source import Source


class InstanceAddress:
    """The configured address, else `ADSUM_ADDRESS`, else the address of this host on the way to the source.

    The address of this host is determined again only when this host no longer has it. So on a host with several
    addresses, another route to the registry does not move the instance.
    """

    def __init__(self, configured: str | None, source: Source) -> None:
        self._configured = configured or os.environ.get(ADDRESS_VARIABLE) or ""
        self._source = source
        self._found = ""
        self._was_local = False

    async def find(self) -> str:
        """Returns the address to register. Raises `RegistryUnavailable`."""
        if self._configured:
            return self._configured
        if not self._found or not is_local(self._found):
            self._found = await self._source.local_address()
            self._was_local = is_local(self._found)  # A Consul agent may state an address that is not on this host.
        return self._found

    @property
    def is_outdated(self) -> bool:
        """True if this host has lost the address that was determined."""
        return self._was_local and not is_local(self._found)
