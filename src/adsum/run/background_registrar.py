"""Registers a wrapped program in the background and keeps it registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from adsum.client.client import Client
from adsum.client.registration.registrar import Registrar
from adsum.core.errors import AdsumError
from adsum.core.model import Registration


def make_registrar(
    client: Client, registration: Registration, address: str, drain_wait: float, *, take_over: bool
) -> Registrar:
    """Returns a registrar for the registration at `address`; "" finds an address when it registers.

    `take_over` takes the id even from a live process at another address or port.
    """
    return client.registrar(registration, address=address or None, drain_wait=drain_wait, take_over=take_over)


class BackgroundRegistrar:
    """Keeps one instance registered from `start` to `stop`. A registry that is down delays nothing."""

    def __init__(
        self,
        client: Client,
        registration: Registration,
        address: str,
        drain_wait: float,
        log: Callable[[str], None],
        *,
        take_over: bool = False,
    ) -> None:
        self._client = client
        self._registrar = make_registrar(client, registration, address, drain_wait, take_over=take_over)
        self._drain_wait = drain_wait
        self._log = log
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Register the instance in the background, and again whenever the registry has lost it."""
        self._starting = asyncio.create_task(self._start())

    async def drain(self, reason: str) -> None:
        """Drain the instance; returns when consumers have stopped calling it, at the latest after the drain wait."""
        if self._drain_wait > 0 and await self._registrar.await_registration(self._drain_wait):
            await self._registrar.drain(self._drain_wait, reason)  # The registrar logs the result.

    async def stop(self, reason: str) -> None:
        """Deregister the instance with this reason, and close the client."""
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError):
                await self._starting
        await self._registrar.stop(reason)
        await self._client.close()

    async def _start(self) -> None:
        try:
            await self._registrar.start()
        except AdsumError as error:
            self._log(f"the program is not registered, and runs on without: {error}")
