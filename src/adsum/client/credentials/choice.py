"""Chooses the registry of a client and the credentials for it, from arguments, variables and the files of this host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adsum.client.credentials.client_credentials import ClientCredentials, load_client_credentials
from adsum.client.credentials.find import are_nodes_of, find_credentials, read_credentials
from adsum.client.native.nodes import DEFAULT_URL, parse_urls
from adsum.core.errors import Invalid
from adsum.core.validation import without_credentials

_SCHEMES: Final = ("http://", "https://")
"""The schemes of an Adsum registry. The addresses of other systems have credentials of their own."""


def choose_registry(
    urls: str | Sequence[str],
    field: str,
    *,
    token_file: str | Path | None = None,
    authority_file: str | Path | None = None,
    credentials: str | Path | None = None,
) -> tuple[tuple[str, ...], ClientCredentials | None]:
    """Returns the URLs of the nodes, and the credentials for them; None if there are none.

    Without `urls` it is the registry that this host has joined, else the one on this host. `field` names `urls` in
    errors. Raises `Invalid`.
    """
    named = parse_urls(urls, field) if urls else ()
    if named and not named[0].startswith(_SCHEMES):
        return named, None
    joined = None
    if credentials:
        joined = read_credentials(Path(credentials))
    elif not named or any(url.startswith("https:") for url in named):
        joined = find_credentials()
    chosen = named or (parse_urls(joined.urls, "credentials") if joined is not None else (DEFAULT_URL,))
    if credentials and joined is not None and not are_nodes_of(chosen, joined):
        others = ",".join(map(without_credentials, joined.urls))
        raise Invalid("credentials", f"{credentials} is for the nodes {others}: omit `{field}`, or name some of them")
    loaded = load_client_credentials(
        chosen, joined, token_file=token_file, authority_file=authority_file, urls_field=field
    )
    return chosen, loaded
