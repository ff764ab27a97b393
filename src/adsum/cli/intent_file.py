"""Reads the TOML file that declares all routes and upstreams of gateways."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from adsum import wire
from adsum.cli.settings.loader import ConfigError
from adsum.core.errors import Invalid
from adsum.core.validation import quoted

_TABLES: Final = {"routes": ("route", "name"), "upstreams": ("upstream", "service")}
"""List in the request body → the name of its tables in the file, and the key that names one of them."""
_FIELD_PATH: Final = re.compile(r"(?P<list>routes|upstreams)(?:\[(?P<index>\d+)\])?\.?(?P<field>.*)")


def read_intent(file: Path) -> wire.IntentBody:
    """Returns the routes and upstreams of the file. Raises `ConfigError` naming the file and the table in it."""
    try:
        written = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None
    unknown = written.keys() - {"route", "upstream"}
    if unknown:
        raise ConfigError(f"{file}: {min(unknown)}: unknown table; only [[route]] and [[upstream]] are allowed")
    body: dict[str, Any] = {"routes": written.get("route", []), "upstreams": written.get("upstream", [])}
    try:
        intent = wire.decode(wire.encode(body), wire.IntentBody)
        intent.to_documents()
    except Invalid as error:
        raise ConfigError(f"{file}: {_with_position(error, body)}") from None
    return intent


def _with_position(error: Invalid, body: Mapping[str, Any]) -> str:
    """Returns the error with its position in the file: `[[route]] 2 'shop': path.prefix: must …`."""
    match = _FIELD_PATH.fullmatch(error.field)
    if match is None:
        return str(error)
    head, key = _TABLES[match["list"]]
    parts = [f"[[{head}]]"]
    if match["index"] is not None:
        table = body[match["list"]][int(match["index"])]
        name = table.get(key) if isinstance(table, dict) else None
        parts[0] += f" {int(match['index']) + 1}" + (f" {quoted(name)}" if isinstance(name, str) else "")
    return ": ".join([*parts, *filter(None, [match["field"]]), error.problem])
