"""Where an etcd is, as people write it: `etcd://[user[:password]@]host[:port],…[?option=…&…]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from adsum.core.errors import Invalid

SCHEME: Final = "etcd://"
PORT: Final = 2379
MAX_HOSTS: Final = 16
"""Hosts of one address; more are refused: a cluster has three, five or seven."""
OPTIONS: Final = ("prefix", "tls", "ca", "cert", "key", "password-file")


@dataclass(frozen=True, slots=True)
class Place:
    """The members of one etcd cluster, and how to speak to them. `hosts` are HOST:PORT; files are PEM."""

    hosts: tuple[str, ...]
    prefix: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""

    @classmethod
    def parse(cls, url: str, name: str = "url") -> Place:
        """Raises `Invalid` for the field `name`, without ever showing the password."""
        rest, _, query = url.removeprefix(SCHEME).partition("?")
        login, at, hosts = rest.rstrip("/").rpartition("@")
        user, _, password = login.partition(":")
        if not url.startswith(SCHEME) or not hosts or (at and not user):
            raise Invalid(name, f"must be {SCHEME}HOST[:PORT],…[?prefix=/adsum&…]")
        given = dict(_options(query, name))
        if "password-file" in given:
            password = _first_line(given.pop("password-file"), name)
        secure = given.pop("tls", "") or ("true" if {"ca", "cert", "key"} & given.keys() else "false")
        if secure not in ("true", "false"):
            raise Invalid(name, "tls must be true or false")
        if ("cert" in given) != ("key" in given):
            raise Invalid(name, "cert and key must be given together")
        found = tuple(dict.fromkeys(_host(each, name) for each in hosts.split(",") if each))
        if not 0 < len(found) <= MAX_HOSTS:
            raise Invalid(name, f"must name 1 to {MAX_HOSTS} hosts")
        return cls(found, user=unquote(user), password=unquote(password), tls=secure == "true", **given)

    def __str__(self) -> str:
        """For people and logs: who we are there is not shown."""
        shown = {each: getattr(self, each) for each in ("prefix", "ca", "cert", "key") if getattr(self, each)}
        options = "&".join(f"{name}={value}" for name, value in shown.items())
        return f"{SCHEME}{','.join(self.hosts)}{'?' if options else ''}{options}"

    def under(self, prefix: str) -> Place:
        """The same, with that prefix where none was given."""
        return self if self.prefix else dataclasses.replace(self, prefix=prefix)


def _options(query: str, name: str) -> Iterator[tuple[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=len(OPTIONS))
    except ValueError:
        raise Invalid(name, f"has options that can't be read; there are {', '.join(OPTIONS)}, each once") from None
    if len(dict(pairs)) < len(pairs):
        raise Invalid(name, "has an option twice")
    for option, value in pairs:
        if option not in OPTIONS:
            raise Invalid(name, f"knows no option {option}; there are {', '.join(OPTIONS)}")
        yield option, value


def _host(text: str, name: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536 or any(each in host for each in "/?#@ "):
        raise Invalid(name, "must name hosts as HOST[:PORT], several separated by commas")
    if ":" in host and not host.startswith("["):
        raise Invalid(name, "must have IPv6 addresses in brackets, such as [::1]:2379")
    return f"{host}:{port}"


def _first_line(file: str, name: str) -> str:
    try:
        return (Path(file).read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Invalid(name, f"names a password file that can't be read: {file}: {why}") from None
