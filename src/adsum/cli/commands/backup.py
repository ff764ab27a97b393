"""Commands that save a registry's catalog and bring it back: backup and restore."""

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

_OTHERS: Final = tuple(name for name in setting_fields(ServeConfig) if name != "store")
_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command(epilog="Example: adsum backup /backups/adsum-$(date +%F).db")
@_file
@with_settings(ServeConfig, exclude=_OTHERS)
def backup(loaded: Settings, file: Path) -> None:
    """Copy the registry's SQLite file to FILE, which must not exist yet; the registry may run meanwhile.

    The copy is read as a whole before it gets its name: a backup that exists can be restored. It holds whatever checks
    send, so it is readable for its owner only. Over etcd use `etcdctl snapshot save`.
    """
    from adsum.stores.sqlite.backup import back_up

    path = _path(loaded)
    try:
        copied = back_up(path, file)
    except StoreOpenFailed as error:
        raise CommandFailed(ExitCode.FAILURE, f"no backup was made: {error}") from None
    output.print_message(f"{file} holds {_told(copied)}, of {path}")


@click.command(
    epilog="Example: systemctl stop adsum && adsum restore /backups/adsum-2026-11-29.db && systemctl start adsum"
)
@_file
@with_settings(ServeConfig, exclude=_OTHERS)
def restore(loaded: Settings, file: Path) -> None:
    """Put the backup FILE in place of the registry's SQLite file. Stop the registry first.

    Clients take a restored catalog for a new history (a new epoch), so that nobody waits for revisions that are gone.
    The file that was there is kept beside it as PATH.before-restore. A FILE that is damaged, or none of a registry, is
    refused, and nothing changes.
    """
    from adsum.stores.sqlite.backup import restore

    path = _path(loaded)
    try:
        copied = restore(file, path)
    except StoreOpenFailed as error:
        raise CommandFailed(ExitCode.FAILURE, f"nothing was restored: {error}") from None
    before = f"; what was there before is kept as {copied.replaced_file}" if copied.replaced_file is not None else ""
    output.print_message(f"{path} holds {_told(copied)}{before}")


def _path(loaded: Settings) -> Path:
    """The path of the SQLite file that the registry is set to. Raises `ConfigError`."""
    url = loaded.get(ServeConfig).store
    if not url.startswith("sqlite:"):
        kind = url.partition(":")[0]
        remedy = "use `etcdctl snapshot`" if kind == "etcd" else "it keeps nothing"
        raise ConfigError(f"--store: must be sqlite:///PATH, not {kind}: {remedy}")
    from adsum.stores.sqlite import SqliteStore

    try:
        return SqliteStore.from_url(url).path
    except Invalid as error:
        raise loaded.config_error(error) from None


def _told(copied: BackupSummary) -> str:
    return f"{copied.instances} instances and {copied.documents} routes and upstreams, at revision {copied.revision}"
