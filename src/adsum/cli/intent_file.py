"""The TOML file that says everything that is wanted of gateways."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from adsum import wire
from adsum.cli.loading import ConfigError
from adsum.core.errors import Invalid


def read(file: Path) -> wire.IntentBody:
    """What the file wants. Raises `ConfigError` with a sentence that names the file and the place in it."""
    try:
        written = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    unknown = written.keys() - {"route", "upstream"}
    if unknown:
        raise ConfigError(f"{file}: {min(unknown)}: there are [[route]] and [[upstream]], and nothing else")
    body: dict[str, Any] = {"routes": written.get("route", []), "upstreams": written.get("upstream", [])}
    try:
        wanted = wire.decode(wire.encode(body), wire.IntentBody)
        wanted.to_bodies()
    except Invalid as error:
        raise ConfigError(f"{file}: {error}") from None
    return wanted
