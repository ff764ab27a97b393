"""The parts of a connection URL as users write it: hosts, options after a question mark, secrets in files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from adsum.core.errors import Invalid


def parse_options(query: str, allowed: Collection[str], field: str) -> dict[str, str]:
    """Parses `a=1&b=2`. Raises `Invalid` for an option that is not allowed or occurs twice."""
    listed = ", ".join(allowed)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=len(allowed))
    except ValueError:
        raise Invalid(field, f"has options that can't be read; the options are {listed}, each at most once") from None
    if len(dict(pairs)) < len(pairs):
        raise Invalid(field, "has an option twice")
    for option, _ in pairs:
        if option not in allowed:
            raise Invalid(field, f"has an unknown option {option}; the options are {listed}")
    return dict(pairs)


def parse_host_port(text: str, default: int, field: str) -> str:
    """Returns `HOST[:PORT]` with its port. Raises `Invalid`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default)
    if (
        not host
        or not port.isdecimal()
        or not 0 < int(port) < 65_536
        or any(character in host for character in "/?#@ ")
    ):
        raise Invalid(field, "must name hosts as HOST[:PORT], several separated by commas")
    if ":" in host and not host.startswith("["):
        raise Invalid(field, f"must have IPv6 addresses in brackets, such as [::1]:{default}")
    return f"{host}:{port}"


def wants_tls(options: Mapping[str, str], field: str) -> bool:
    """Returns whether the options `tls`, `ca`, `cert` and `key` request TLS. Raises `Invalid` if they disagree."""
    tls = options.get("tls") or ("true" if {"ca", "cert", "key"} & options.keys() else "false")
    if tls not in ("true", "false"):
        raise Invalid(field, "tls must be true or false")
    if ("cert" in options) != ("key" in options):
        raise Invalid(field, "cert and key must be given together")
    return tls == "true"


def read_secret(file: str, kind: str, field: str) -> str:
    """Returns the secret in the first line of a file. `kind` names it in errors. Raises `Invalid`."""
    try:
        return (Path(file).read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise Invalid(field, f"names a {kind} file that can't be read: {file}: {reason}") from None
