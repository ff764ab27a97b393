"""The settings of a client of the registry: the table [client]."""

from __future__ import annotations

from dataclasses import dataclass

from adsum.client.actor import default_actor
from adsum.client.views.view import CACHE_MAX_AGE_LIMIT, DEFAULT_CACHE_MAX_AGE
from adsum.config.addresses import DEFAULT_URL
from adsum.settings import check_range, setting


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The settings of a client of the registry: its addresses, and who the client is."""

    url: str = setting(
        "Address of the registry; separate several nodes of one registry by commas. `run`, `register` and `resolve` "
        "also work without a registry: etcd://HOST:PORT,… or consul://HOST:PORT",
        default=DEFAULT_URL,
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
