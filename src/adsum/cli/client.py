"""From settings to a client, for the length of one command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.client.errors import RegistryUnavailable
from adsum.config.serve import ClientConfig
from adsum.core.errors import Invalid

T = TypeVar("T")

_OTHERS: Final = {"consul": "the Consul agent", "etcd": "etcd"}
"""What answers in a registry's place, by the scheme of its address."""


def make_client(settings: Settings) -> Client:
    """The client that the settings describe. Raises `ConfigError`."""
    config = settings.get(ClientConfig)
    try:
        # A command looks on: it calls nobody by what it resolves, so no drain waits for it.
        return Client(
            config.url, zone=config.zone, actor=config.actor, cache_max_age=config.cache_max_age, acknowledge=False
        )
    except Invalid as error:
        raise settings.config_error(error, {"urls": "url"}) from None


def run_with_client(settings: Settings, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a client and close it. Raises `CommandFailed` if no registry is available, and what `work` raises."""
    logging.getLogger("adsum").addHandler(logging.NullHandler())  # We say ourselves what matters here.

    async def go() -> T:
        async with make_client(settings) as client:
            return await work(client)

    try:
        return asyncio.run(go())
    except RegistryUnavailable as error:
        raise _unavailable(error, settings.get(ClientConfig).url) from None


def _unavailable(error: RegistryUnavailable, url: str) -> CommandFailed:
    """Nobody answered, or none as it should: say so, and what to do."""
    other = _OTHERS.get(url.partition(":")[0])
    said = f"{other} does not answer: {error.reason}" if other else str(error)
    if error.declined:
        return CommandFailed(
            ExitCode.UNAVAILABLE, f"{said} (try again when that is over; `adsum status` shows how a node fares)"
        )
    running = "it" if other else "`adsum serve`"
    return CommandFailed(
        ExitCode.UNAVAILABLE, f"{said} (is {running} running there? --url or ADSUM_URL says where to look)"
    )
