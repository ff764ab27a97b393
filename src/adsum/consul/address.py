"""The address of a Consul agent as users write it: `consul://HOST[:PORT][?OPTION=VALUE&…]`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from adsum import connection_url
from adsum.core.errors import Invalid

SCHEME: Final = "consul://"
DEFAULT_PORT: Final = 8500
OPTIONS: Final = ("dc", "token-file", "tls", "ca", "cert", "key")
TOKEN_VARIABLE: Final = "CONSUL_HTTP_TOKEN"
"""The environment variable in which Consul's own clients look for the token."""


@dataclass(frozen=True, slots=True)
class ConsulAddress:
    """One agent and the options of connections to it. `host` is HOST:PORT; `ca`, `cert` and `key` are PEM files."""

    host: str
    dc: str = ""
    token: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""

    @classmethod
    def parse(cls, url: str, environ: Mapping[str, str], name: str = "url") -> ConsulAddress:
        """Returns the address that a URL names. `environ` may hold the token. Raises `Invalid` for the field `name`."""
        host, _, query = url.removeprefix(SCHEME).partition("?")
        if not url.startswith(SCHEME) or not host or "@" in host or "," in host:
            raise Invalid(
                name, f"must be {SCHEME}HOST[:PORT][?dc=…&token-file=…]: one agent, preferably the one on this host"
            )
        given = connection_url.parse_options(query, OPTIONS, name)
        file = given.pop("token-file", "")
        token = connection_url.read_secret(file, "token", name) if file else environ.get(TOKEN_VARIABLE, "")
        tls = connection_url.wants_tls(given, name)
        given.pop("tls", None)
        return cls(connection_url.parse_host_port(host.rstrip("/"), DEFAULT_PORT, name), token=token, tls=tls, **given)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Returns the TLS context; None without TLS. Raises `Invalid` if a file can't be used."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise Invalid("url", f"names a certificate that can't be used: {error}") from None
        return context

    def __str__(self) -> str:
        """Returns the address for people and logs, without the token."""
        return f"{SCHEME}{self.host}"
