"""The commands `adsum backup` and `adsum restore`: save the catalog of a registry and put it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from adsum.cli import output
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import ConfigError, Settings
from adsum.cli.settings.values import setting_fields
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid, StoreOpenFailed

if TYPE_CHECKING:
    from adsum.stores.sqlite.backup import BackupSummary

_UNUSED_SETTINGS: Final = tuple(name for name in setting_fields(ServeConfig) if name != "store")
_file_argument = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command(epilog="Example: adsum backup /backups/adsum-$(date +%F).db")
@_file_argument
@with_settings(ServeConfig, exclude=_UNUSED_SETTINGS)
def backup(loaded: Settings, file: Path) -> None:
    """Copy the registry's SQLite file to FILE. The registry may keep running; FILE must not exist yet.

    The copy gets its name only after it has been read completely, so every backup that exists can be restored. Only its
    owner can read it, because it holds everything that health checks send, and the hashes of all tokens (not the tokens
    themselves, nor the keys in the data folder). For a registry over etcd use `etcdctl snapshot save`.
    """
    from adsum.stores.sqlite.backup import back_up

    path = _path(loaded)
    try:
        summary = back_up(path, file)
    except StoreOpenFailed as error:
        raise CommandFailed(ExitCode.FAILURE, f"no backup was made: {error}") from None
    output.print_message(f"{file} holds {_describe(summary)}, of {path}")


@click.command(
    epilog="Example: systemctl stop adsum && adsum restore /backups/adsum-2026-11-29.db && systemctl start adsum"
)
@_file_argument
@with_settings(ServeConfig, exclude=_UNUSED_SETTINGS)
def restore(loaded: Settings, file: Path) -> None:
    """Replace the registry's SQLite file by the backup FILE. Stop the registry first.

    The restored catalog gets a new epoch: clients load it completely and don't wait for revisions that are gone.
    Tokens come back as they were: revoke those again that were revoked since the backup.
    The previous file is kept as PATH.before-restore. If FILE is damaged or is not a file of a registry, the command
    fails and nothing changes.
    """
    from adsum.stores.sqlite.backup import restore

    path = _path(loaded)
    try:
        summary = restore(file, path)
    except StoreOpenFailed as error:
        raise CommandFailed(ExitCode.FAILURE, f"nothing was restored: {error}") from None
    before = f"; the previous file is kept as {summary.replaced_file}" if summary.replaced_file is not None else ""
    output.print_message(f"{path} holds {_describe(summary)}{before}")


def _path(loaded: Settings) -> Path:
    """Returns the path of the registry's SQLite file. Raises `ConfigError` if the store is another one."""
    url = loaded.get(ServeConfig).store
    if not url.startswith("sqlite:"):
        kind = url.partition(":")[0]
        remedy = "use `etcdctl snapshot`" if kind == "etcd" else "it keeps nothing on disk"
        raise ConfigError(f"--store: must be sqlite:///PATH, not {kind}: {remedy}")
    from adsum.stores.sqlite import SqliteStore

    try:
        return SqliteStore.from_url(url).path
    except Invalid as error:
        raise loaded.config_error(error) from None


def _describe(summary: BackupSummary) -> str:
    intent, access = f"{summary.documents} routes and upstreams", f"{summary.tokens} tokens and invites"
    return f"{summary.instances} instances, {intent}, {access}, at revision {summary.revision}"
