"""The nodes of a registry in the order in which to try them: those that answer, those that failed, those that hung."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final
from urllib.parse import urlsplit

from adsum.consul import address as consul
from adsum.core.errors import Invalid
from adsum.core.validation import quoted, without_credentials
from adsum.etcd import address as etcd

DEFAULT_URL: Final = "http://127.0.0.1:23786"
"""The address where `adsum serve` listens by default."""
HUNG_NODE_PENALTY: Final = 30.0
"""Seconds for which a node that hung is tried after all others; after that it ranks like a node that failed."""


class RegistryNodes:
    """The nodes of one registry, in an order drawn for this client, so that clients spread over the nodes.

    `now` is always the current monotonic time in seconds.
    """

    def __init__(self, urls: Sequence[str], rng: Random) -> None:
        self._urls = rng.sample(list(urls), len(urls))
        self._hung_until: dict[str, float] = {}

    @property
    def urls(self) -> list[str]:
        """The URL of every node, in no particular order."""
        return list(self._urls)

    def order(self, now: float) -> list[str]:
        """Returns the URL of every node once, in the order in which to try them."""
        return sorted(self._urls, key=lambda url: self._hung_until.get(url, now) > now)

    def current(self, now: float) -> str:
        """Returns the URL of the node to try first."""
        return self.order(now)[0]

    def mark_answered(self, url: str) -> None:
        """Records that the node answered, so it does not hang."""
        self._hung_until.pop(url, None)

    def mark_failed(self, url: str) -> None:
        """Records that the node refused or failed: it is tried after the others from now on."""
        self._urls.remove(url)
        self._urls.append(url)

    def mark_hung(self, url: str, now: float) -> None:
        """Records that the node was silent for too long: it is tried last for `HUNG_NODE_PENALTY` seconds."""
        self.mark_failed(url)
        self._hung_until[url] = now + HUNG_NODE_PENALTY

    def __len__(self) -> int:
        return len(self._urls)


def parse_urls(urls: str | Sequence[str], field: str = "url") -> tuple[str, ...]:
    """Returns the URLs in text such as `http://a:23786,http://b:23786`, or in a list.

    They have no slash at the end and no duplicates. The address of an etcd or of a Consul agent is left as it is.
    Raises `Invalid`.
    """
    if isinstance(urls, str) and urls.startswith(etcd.SCHEME):
        etcd.EtcdAddress.parse(urls, field)
        return (urls,)
    if isinstance(urls, str) and urls.startswith(consul.SCHEME):
        consul.ConsulAddress.parse(urls, {}, field)
        return (urls,)
    texts = urls.split(",") if isinstance(urls, str) else urls
    unique = tuple(dict.fromkeys(_url(text.strip(), field) for text in texts if text.strip()))
    if not unique:
        raise Invalid(field, f"must name a registry, such as {DEFAULT_URL}")
    return unique


def _url(text: str, field: str) -> str:
    try:
        parts = urlsplit(text)
        is_complete = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_complete = False
    if is_complete and parts.scheme in ("consul", "etcd"):
        url = quoted(without_credentials(text))
        raise Invalid(
            field, f"must be nodes of one registry, or a single etcd:// or consul:// address without others, not {url}"
        )
    if is_complete and parts.scheme not in ("http", "https"):
        raise Invalid(
            field, f"must begin with http://, https://, etcd:// or consul://, not with {quoted(parts.scheme)}"
        )
    if not is_complete or parts.query or parts.fragment:
        raise Invalid(field, f"must be an address such as {DEFAULT_URL}, not {quoted(without_credentials(text))}")
    return text.rstrip("/")
