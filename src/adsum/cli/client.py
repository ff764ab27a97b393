"""Runs the work of one command with a client that the settings describe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.client.errors import NotAllowed, NotAuthenticated, RegistryUnavailable
from adsum.config.addresses import DEFAULT_URL
from adsum.config.client import ClientConfig
from adsum.core.errors import Invalid

T = TypeVar("T")

_SYSTEM_NAMES: Final = {"consul": "the Consul agent", "etcd": "etcd"}
"""Scheme of an address → the name of the system there, which commands can use instead of a registry."""


def make_client(settings: Settings) -> Client:
    """Returns the client that the settings describe. Raises `ConfigError`."""
    config = settings.get(ClientConfig)
    try:
        # `acknowledge=False`: a command calls no instance that it resolves, so no drain has to wait for it.
        return Client(
            config.url,
            zone=config.zone,
            actor=config.actor,
            cache_max_age=config.cache_max_age,
            acknowledge=False,
            token_file=config.token_file,
            authority_file=config.authority_file,
        )
    except Invalid as error:
        raise settings.config_error(error, {"urls": "url"}) from None


def run_with_client(settings: Settings, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a client and close it.

    Raises `CommandFailed` if no registry is available, and everything that `work` raises.
    """
    logging.getLogger("adsum").addHandler(logging.NullHandler())  # The command prints what matters itself.

    async def go() -> T:
        async with make_client(settings) as client:
            return await work(client)

    try:
        return asyncio.run(go())
    except NotAuthenticated as error:
        raise CommandFailed(ExitCode.NO_PERMISSION, str(error)) from None
    except NotAllowed as error:
        raise CommandFailed(ExitCode.NO_PERMISSION, f"{error} (`adsum whoami` shows your scopes)") from None
    except RegistryUnavailable as error:
        raise _unavailable(error, settings.get(ClientConfig).url) from None


def _unavailable(error: RegistryUnavailable, url: str) -> CommandFailed:
    """Returns the error of a command that got no usable answer: the reason, and what to do."""
    system = _SYSTEM_NAMES.get(url.partition(":")[0])
    problem = f"{system} does not answer: {error.reason}" if system else str(error)
    if error.declined:
        return CommandFailed(
            ExitCode.UNAVAILABLE, f"{problem} (try again when that is over; `adsum status` shows the state of a node)"
        )
    if error.untrusted:
        return CommandFailed(ExitCode.UNAVAILABLE, problem)
    server = "it" if system else "`adsum serve`"
    # A host that has joined a registry has another URL.
    other = "; `adsum join` joins a registry on another host" if url == DEFAULT_URL else ""
    return CommandFailed(
        ExitCode.UNAVAILABLE, f"{problem} (is {server} running there? --url or ADSUM_URL sets the address{other})"
    )
