"""Which registry node is asked: one that works for as long as it works, then the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final
from urllib.parse import urlsplit

from adsum.consul import place as consul
from adsum.core.errors import Invalid
from adsum.core.rules import shown
from adsum.etcd import place as etcd

DEFAULT_URL: Final = "http://127.0.0.1:23786"
"""Where `adsum serve` listens unless told otherwise."""


class Nodes:
    """The nodes of one registry, in an order of this client's own, so that clients spread over them."""

    def __init__(self, urls: Sequence[str], rng: Random) -> None:
        self._urls = rng.sample(list(urls), len(urls))

    @property
    def current(self) -> str:
        """The one to ask: it worked the last time, or the ones before it did not."""
        return self._urls[0]

    def failed(self, url: str) -> None:
        """That one did not answer: it is asked last from now on. Nothing changes if it is not the current one."""
        if url == self.current:
            self._urls.append(self._urls.pop(0))

    def __iter__(self) -> Iterator[str]:
        """Each once, the current one first."""
        return iter(list(self._urls))

    def __len__(self) -> int:
        return len(self._urls)


def parse_urls(urls: str | Sequence[str], field: str = "url") -> tuple[str, ...]:
    """The addresses in `"http://a:23786,http://b:23786"` or a list, without a slash at the end.

    The address of an etcd or of a Consul agent is left as it is. Raises `Invalid`.
    """
    if isinstance(urls, str) and urls.startswith(etcd.SCHEME):
        etcd.Place.parse(urls, field)
        return (urls,)
    if isinstance(urls, str) and urls.startswith(consul.SCHEME):
        consul.Place.parse(urls, {}, field)
        return (urls,)
    texts = urls.split(",") if isinstance(urls, str) else urls
    found = tuple(dict.fromkeys(_url(text.strip(), field) for text in texts if text.strip()))
    if not found:
        raise Invalid(field, f"must name a registry, such as {DEFAULT_URL}")
    return found


def _url(text: str, field: str) -> str:
    try:
        parts = urlsplit(text)
        complete = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        complete = False
    if complete and parts.scheme in ("consul", "etcd"):
        raise Invalid(
            field, f"must be nodes of one registry, or one etcd:// or consul:// address alone, not {shown(text)}"
        )
    if complete and parts.scheme not in ("http", "https"):
        raise Invalid(field, f"must begin with http://, https://, etcd:// or consul://, not with {shown(parts.scheme)}")
    if not complete or parts.query or parts.fragment:
        raise Invalid(field, f"must be an address such as {DEFAULT_URL}, not {shown(text)}")
    return text.rstrip("/")
