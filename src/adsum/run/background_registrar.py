"""Keeping a wrapped program listed, whatever the registry does."""

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
    """Who lists it and keeps it listed, at `address`; "" finds one when registering.

    `take_over` takes the id even from a process that lives elsewhere.
    """
    return client.registrar(registration, address=address or None, drain_wait=drain_wait, take_over=take_over)


class BackgroundRegistrar:
    """One instance in the catalog, from `start` to `stop`. The registry being away delays nobody."""

    def __init__(
        self,
        client: Client,
        registration: Registration,
        address: str,
        drain_wait: float,
        say: Callable[[str], None],
        *,
        take_over: bool = False,
    ) -> None:
        self._client = client
        self._registrar = make_registrar(client, registration, address, drain_wait, take_over=take_over)
        self._drain_wait = drain_wait
        self._say = say
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """List it, and list it again whenever the registry has forgotten it."""
        self._starting = asyncio.create_task(self._start())

    async def drain(self, reason: str) -> None:
        """Return when nobody calls it any more, at latest after the drain's time."""
        if self._drain_wait > 0 and await self._registrar.await_registration(self._drain_wait):
            await self._registrar.drain(self._drain_wait, reason)  # It logs how that ended, and by whom it was held up.

    async def stop(self, reason: str) -> None:
        """Take it out, with the reason."""
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
            self._say(f"it is not listed, and goes on unlisted: {error}")
