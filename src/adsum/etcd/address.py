"""The address of an etcd cluster as users write it: `etcd://[USER[:PASSWORD]@]HOST[:PORT],…[?OPTION=VALUE&…]`."""

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
"""The prefix of a store's keys if the address names none."""
MAX_HOSTS: Final = 16
"""Hosts in one address; more are refused. A cluster has three, five or seven members."""
OPTIONS: Final = ("prefix", "tls", "ca", "cert", "key", "password-file")


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """The members of one etcd cluster and the options of connections to it.

    `hosts` are HOST:PORT. `ca`, `cert` and `key` are PEM files. A slash is added to a `prefix` without one, so that
    `/services` does not include the keys of `/services-old/`.
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
        """Returns the address of a URL. Raises `Invalid` for the field `name`, without the password in its text."""
        rest, _, query = url.removeprefix(SCHEME).partition("?")
        login, at, hosts = rest.rstrip("/").rpartition("@")
        user, _, password = login.partition(":")
        if not url.startswith(SCHEME) or not hosts or (at and not user):
            raise Invalid(name, f"must be {SCHEME}HOST[:PORT],…[?prefix=/adsum&…]")
        given = connection_url.parse_options(query, OPTIONS, name)
        if "password-file" in given:
            given["password_file"] = given.pop("password-file")
            connection_url.read_secret(given["password_file"], "password", name)  # Fails early.
        tls = connection_url.wants_tls(given, name)
        given.pop("tls", None)
        found = tuple(
            dict.fromkeys(connection_url.parse_host_port(host, DEFAULT_PORT, name) for host in hosts.split(",") if host)
        )
        if not 0 < len(found) <= MAX_HOSTS:
            raise Invalid(name, f"must name 1 to {MAX_HOSTS} hosts")
        return cls(found, user=unquote(user), password=unquote(password), tls=tls, **given)

    @property
    def host_ports(self) -> list[tuple[str, int]]:
        """The host and the port of each member; IPv6 addresses without brackets."""
        parts = (member.rpartition(":") for member in self.hosts)
        return [(host.strip("[]"), int(port)) for host, _, port in parts]

    def read_password(self) -> str:
        """Returns the password, read anew from its file if there is one. Raises `Invalid`."""
        if not self.password_file:
            return self.password
        return connection_url.read_secret(self.password_file, "password", "password-file")

    def __str__(self) -> str:
        """Returns the address for people and logs, without the user and the password."""
        options = {
            "prefix": self.prefix,
            "tls": "true" if self.tls else "",
            "ca": self.ca,
            "cert": self.cert,
            "key": self.key,
        }
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return f"{SCHEME}{','.join(self.hosts)}{'?' if query else ''}{query}"

    def with_default_prefix(self, prefix: str) -> EtcdAddress:
        """Returns the address with that prefix if it has none."""
        return self if self.prefix else dataclasses.replace(self, prefix=prefix)
