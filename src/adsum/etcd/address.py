"""Where an etcd is, as people write it: `etcd://[user[:password]@]host[:port],…[?option=…&…]`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from adsum import connection_url
from adsum.core.errors import Invalid

SCHEME: Final = "etcd://"
DEFAULT_PORT: Final = 2379
DEFAULT_STORE_PREFIX: Final = "/adsum/"
"""What the keys of a registry's store begin with, where nothing else is said."""
MAX_HOSTS: Final = 16
"""Hosts of one address; more are refused: a cluster has three, five or seven."""
OPTIONS: Final = ("prefix", "tls", "ca", "cert", "key", "password-file")


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """The members of one etcd cluster, and how to speak to them. `hosts` are HOST:PORT; files are PEM.

    A prefix ends with a slash, given or not: `/services` must not hold the keys of `/services-old/`.
    """

    hosts: tuple[str, ...]
    prefix: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        if self.prefix:
            object.__setattr__(self, "prefix", f"{self.prefix.rstrip('/')}/")

    @classmethod
    def parse(cls, url: str, name: str = "url") -> EtcdAddress:
        """Raises `Invalid` for the field `name`, without ever showing the password."""
        rest, _, query = url.removeprefix(SCHEME).partition("?")
        login, at, hosts = rest.rstrip("/").rpartition("@")
        user, _, password = login.partition(":")
        if not url.startswith(SCHEME) or not hosts or (at and not user):
            raise Invalid(name, f"must be {SCHEME}HOST[:PORT],…[?prefix=/adsum&…]")
        given = connection_url.parse_options(query, OPTIONS, name)
        if "password-file" in given:
            given["password_file"] = given.pop("password-file")
            connection_url.read_secret(
                given["password_file"], "password", name
            )  # One that can't be read is said at once.
        tls = connection_url.wants_tls(given, name)
        given.pop("tls", None)
        found = tuple(
            dict.fromkeys(connection_url.parse_host_port(each, DEFAULT_PORT, name) for each in hosts.split(",") if each)
        )
        if not 0 < len(found) <= MAX_HOSTS:
            raise Invalid(name, f"must name 1 to {MAX_HOSTS} hosts")
        return cls(found, user=unquote(user), password=unquote(password), tls=tls, **given)

    @property
    def host_ports(self) -> list[tuple[str, int]]:
        """The host and the port of each; IPv6 addresses without brackets."""
        parts = (each.rpartition(":") for each in self.hosts)
        return [(host.strip("[]"), int(port)) for host, _, port in parts]

    def read_password(self) -> str:
        """The password, as its file says now if it is in one. Raises `Invalid`."""
        if not self.password_file:
            return self.password
        return connection_url.read_secret(self.password_file, "password", "password-file")

    def __str__(self) -> str:
        """For people and logs: who we are there is not shown."""
        said = {
            "prefix": self.prefix,
            "tls": "true" if self.tls else "",
            "ca": self.ca,
            "cert": self.cert,
            "key": self.key,
        }
        options = "&".join(f"{name}={value}" for name, value in said.items() if value)
        return f"{SCHEME}{','.join(self.hosts)}{'?' if options else ''}{options}"

    def with_default_prefix(self, prefix: str) -> EtcdAddress:
        """The same, with that prefix where none was given."""
        return self if self.prefix else dataclasses.replace(self, prefix=prefix)
