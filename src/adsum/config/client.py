"""The settings of a client of the registry: the table [client]."""

from __future__ import annotations

from dataclasses import dataclass

from adsum.client.actor import default_actor
from adsum.client.credentials.find import find_credentials
from adsum.client.views.view import CACHE_MAX_AGE_LIMIT, DEFAULT_CACHE_MAX_AGE
from adsum.config.addresses import DEFAULT_URL
from adsum.settings import check_range, setting


def default_url() -> str:
    """Returns the addresses of the registry that this host has joined, else the default one. Raises `Invalid`."""
    joined = find_credentials()
    return ",".join(joined.urls) if joined is not None else DEFAULT_URL


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The settings of a client of the registry: its addresses, and who the client is."""

    url: str = setting(
        "Address of the registry; separate several nodes of one registry by commas. `run`, `register` and `resolve` "
        "also work without a registry: etcd://HOST:PORT,… or consul://HOST:PORT (default: the registry that this host "
        f"has joined, else {DEFAULT_URL})",
        default_factory=default_url,
    )
    token_file: str = setting(
        "File with the token to send; never sent over plain http to another host (default: the token that this host "
        "got when it joined)",
        metavar="FILE",
        default="",
    )
    authority_file: str = setting(
        "File with the certificates, in PEM, of the authorities that sign those of the registry (default: the one of "
        "the registry that this host has joined, else those of this system)",
        metavar="FILE",
        default="",
    )
    zone: str = setting("Zone of this host; callers prefer instances of their own zone", default="")
    actor: str = setting(
        "Name under which changes are recorded in the history (default: user@host)", default_factory=default_actor
    )
    cache_max_age: float = setting(
        "Age up to which a view cached on this host is used silently while no registry answers; an older one is still "
        "used, and each error says so",
        duration=True,
        default=DEFAULT_CACHE_MAX_AGE,
    )

    def __post_init__(self) -> None:
        check_range("cache_max_age", self.cache_max_age, 0.0, CACHE_MAX_AGE_LIMIT)
