"""Derives the flags of commands from the settings in `adsum.config`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING
from functools import wraps
from typing import Any, Final, TypeVar

import click

from adsum.cli.settings.loader import DEFAULT_ORIGIN, Settings, flag_name, load, variable_name
from adsum.cli.settings.values import MULTI_VALUE_TYPES, Field, setting_fields
from adsum.core import sizes
from adsum.core.validation import without_credentials

C = TypeVar("C", bound=Callable[..., Any])

CREDENTIALS: Final = ("token_file", "authority_file")
"""Client settings that a command does not use if it does not use the native API."""
UNUSED_BY_WRITES: Final = ("zone", "cache_max_age")
"""Client settings that a command does not use if it only writes to the registry."""
UNUSED_BY_READS: Final = ("actor", *UNUSED_BY_WRITES)
"""Client settings that a command does not use if it only reads from the registry."""


def with_settings(*tables: type, exclude: tuple[str, ...] = ()) -> Callable[[C], Callable[..., Any]]:
    """Returns a decorator that gives a command the flags of `tables`, without those in `exclude`.

    The command receives the loaded `Settings` as its first argument.
    """

    def decorate(command: C) -> Callable[..., Any]:
        names = [name for table in tables for name in setting_fields(table) if name not in exclude]

        @wraps(command)
        def load_and_run(*, config: str | None, show_config: bool, **options: Any) -> Any:
            flags = {name: options.pop(name, None) for name in names}
            loaded = load(tables, flags, os.environ, config)
            if show_config:
                _print_settings(loaded, names)
                return None
            return command(loaded, **options)

        options = [
            _option(*setting_fields(table)[name]) for table in tables for name in setting_fields(table) if name in names
        ]
        options += [
            click.option("--config", metavar="FILE", help="TOML file to read settings from.  [env: ADSUM_CONFIG]"),
            click.option(
                "--show-config",
                is_flag=True,
                is_eager=True,
                callback=_without_arguments,
                help="Print every setting with its value and source, and exit.",
            ),
        ]
        decorated: Callable[..., Any] = load_and_run
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _option(field: Field, kind: Any) -> Callable[[C], C]:
    if kind is bool:
        return _switch(field)
    options: dict[str, Any] = {"multiple": kind in MULTI_VALUE_TYPES, "default": None}
    if field.metadata["bare"]:
        options |= {"is_flag": False, "flag_value": field.metadata["bare"]}
    units = "DURATION" if field.metadata["duration"] else "SIZE" if field.metadata["size"] else ""
    metavar = field.metadata["metavar"] or units or _METAVARS.get(kind, "TEXT")
    text = f"{field.metadata['help']}.  [env: {variable_name(field)}{_default(field)}{_reloads(field)}]"
    return click.option(flag_name(field.name), field.name, type=str, metavar=metavar, help=text, **options)


def _switch(field: Field) -> Callable[[C], C]:
    """Returns the option of a boolean setting: two flags, whose value is passed on as text like every other setting."""
    names = f"{flag_name(field.name)}/{flag_name(f'no_{field.name}')}"
    default = str(field.default).lower()
    text = f"{field.metadata['help']}.  [env: {variable_name(field)}; default: {default}{_reloads(field)}]"
    return click.option(names, field.name, default=None, callback=_to_text, help=text)


def _to_text(_: click.Context, __: click.Parameter, value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _without_arguments(ctx: click.Context, _: click.Parameter, show_config: bool) -> bool:
    """Lets --show-config work without the arguments that the command requires."""
    ctx.resilient_parsing = ctx.resilient_parsing or show_config
    return show_config


_METAVARS: Mapping[Any, str] = {int: "NUMBER", float: "NUMBER"}


def _reloads(field: Field) -> str:
    return "; reloaded on SIGHUP" if field.metadata["reloads"] else ""


def _default(field: Field) -> str:
    """Returns the default for `--help`; "" if it depends on the machine (`--show-config` prints it)."""
    value = field.default
    if value is MISSING or value in ("", (), 0):
        return ""
    if isinstance(value, float):
        return f"; default: {value:g}{' s' if field.metadata['duration'] else ''}"
    return f"; default: {sizes.format_size(value) if field.metadata['size'] else _format_value(value)}"


def _print_settings(loaded: Settings, names: Collection[str]) -> None:
    from adsum.cli.output import print_table

    rows = []
    for kind, values in loaded.tables.items():
        for name in (field for field in setting_fields(kind) if field in names):
            value = getattr(values, name)
            origin = loaded.origins[name]
            rows.append((name, _format_value(value), "" if origin == DEFAULT_ORIGIN else origin))
    print_table(("SETTING", "VALUE", "FROM"), rows)


def _format_value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text}" for key, text in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else without_credentials(str(value))
