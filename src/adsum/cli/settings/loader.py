"""Loads settings: flags outrank the environment, which outranks the file, which outranks the defaults. Each value
keeps its origin.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from adsum.cli.settings.values import MULTI_VALUE_TYPES, Field, parse_text, parse_texts, parse_toml, setting_fields
from adsum.config.tables import TABLES
from adsum.core.errors import AdsumError, Invalid

CONFIG_VARIABLE: Final = "ADSUM_CONFIG"
SYSTEM_FILE: Final = Path("/etc/adsum/adsum.toml")
DEFAULT_ORIGIN: Final = "default"

T = TypeVar("T")


class ConfigError(AdsumError):
    """A setting is invalid. The message is one sentence: where the value was set, and what would be right."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The tables of settings that a command uses, and the origin of each value."""

    tables: Mapping[type, object]
    origins: Mapping[str, str]
    """Name of a setting → its origin: the flag, the variable, or the file and its key; `default` if none of them."""
    flags: Mapping[str, Any]
    environ: Mapping[str, str]
    file: str | None
    """The inputs `flags`, `environ` and `file` are kept for `reload`."""

    def reload(self) -> Settings:
        """Returns the settings with the present content of the file. Raises `ConfigError`."""
        return load(tuple(self.tables), self.flags, self.environ, self.file)

    def from_file(self, table: type) -> Settings:
        """Returns a table from the file alone, because the command has no flags for it. Raises `ConfigError`."""
        where = {name: self.environ.get(name, "") for name in (CONFIG_VARIABLE, "XDG_CONFIG_HOME")}
        return load((table,), {}, where, self.file)

    def get(self, table: type[T]) -> T:
        """Returns the values of a table."""
        return cast("T", self.tables[table])

    def config_error(self, error: Invalid, names: Mapping[str, str] = MappingProxyType({})) -> ConfigError:
        """Returns the error of a setting with the origin of its value. `names`: field of the error → setting."""
        first = _setting(error)
        return ConfigError(_message(self.origins, names.get(first, first), error.problem))


def variable_name(field: Field) -> str:
    """Returns the name of a setting's environment variable."""
    return f"ADSUM_{field.metadata['prefix']}{field.name.upper()}"


def flag_name(name: str) -> str:
    """Returns the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def load(
    tables: Sequence[type], flags: Mapping[str, Any], environ: Mapping[str, str], file: str | None = None
) -> Settings:
    """Returns the settings of `tables`. `flags`: name of a setting → its text, or None. Raises `ConfigError`."""
    path = _path(file, environ)
    content = _read(path) if path is not None else {}
    origins: dict[str, str] = {}
    loaded: dict[type, object] = {}
    for table in tables:
        values: dict[str, Any] = {}
        section = next(name for name, kind in TABLES.items() if kind is table)
        for name, (field, kind) in setting_fields(table).items():
            origins[name] = DEFAULT_ORIGIN
            try:
                if name in content.get(section, {}):
                    origins[name] = f"{path}: {section}.{name}"
                    values[name] = parse_toml(field, kind, content[section][name])
                if environ.get(variable_name(field)):
                    origins[name] = variable_name(field)
                    values[name] = parse_text(field, kind, environ[variable_name(field)])
                if flags.get(name) not in (None, ()):
                    origins[name] = flag_name(name)
                    values[name] = (parse_texts if kind in MULTI_VALUE_TYPES else parse_text)(field, kind, flags[name])
            except Invalid as error:
                raise ConfigError(_message(origins, name, error.problem)) from None
        try:
            loaded[table] = table(**values)
        except Invalid as error:
            raise ConfigError(_message(origins, _setting(error), error.problem)) from None
    return Settings(MappingProxyType(loaded), MappingProxyType(origins), flags, environ, file)


def _setting(error: Invalid) -> str:
    """Returns the setting that contains the field of an error."""
    return error.field.partition(".")[0].partition("[")[0]


def _message(origins: Mapping[str, str], name: str, problem: str) -> str:
    origin = origins.get(name, name)
    return f"{flag_name(name) if origin == DEFAULT_ORIGIN else origin}: {problem}"


def _path(file: str | None, environ: Mapping[str, str]) -> Path | None:
    """Returns the file to read: the one that is named, else the first that exists."""
    named = file or environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - needs no home to exist
    for path in (Path(home) / "adsum" / "adsum.toml", SYSTEM_FILE):
        if path.is_file():
            return path
    return None


def _read(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the tables of the file. Raises `ConfigError` for an unknown table or key."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: can't be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    for section, table in content.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {_outside_tables(section)}")
        if section not in TABLES:
            raise ConfigError(f"{path}: {_unknown(section, TABLES, 'table')}")
        for name in table:
            if name not in setting_fields(TABLES[section]):
                raise ConfigError(f"{path}: {section}.{_unknown(name, setting_fields(TABLES[section]), 'setting')}")
    return content


def _outside_tables(name: str) -> str:
    """Returns the error clause for a key outside of every table."""
    owners = [section for section, table in TABLES.items() if name in setting_fields(table)]
    tables = " or ".join(f"[{owner}]" for owner in owners)
    hint = f"it belongs below {tables}" if owners else f"the tables are {', '.join(f'[{name}]' for name in TABLES)}"
    return f"{name}: must stand in a table; {hint}"


def _unknown(name: str, names: Mapping[str, Any], noun: str) -> str:
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
    return f"{name}: unknown {noun}; {hint}"
