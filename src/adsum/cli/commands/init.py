"""The command `adsum init`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from adsum.cli import output
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings, flag_name
from adsum.cli.settings.values import setting_fields
from adsum.config.addresses import DEFAULT_LISTEN
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from adsum.dialects.xds.settings import DEFAULT_XDS_LISTEN, DEFAULT_XDS_PORT

if TYPE_CHECKING:
    from adsum.node_security.node_files import MadeFiles
    from adsum.node_security.security_folder import SecurityFolder

USED_SETTINGS: Final = ("data", "store", "node", "advertise", "tls_name")
"""The settings of a node that decide what its files contain, and where they are."""
EXAMPLE_LISTEN: Final = f"0.0.0.0:{DEFAULT_LISTEN.rpartition(':')[2]}"
EXAMPLE_XDS: Final = f"0.0.0.0:{DEFAULT_XDS_PORT}"

_UNUSED: Final = tuple(name for name in setting_fields(ServeConfig) if name not in USED_SETTINGS)


@click.command(epilog="Examples: adsum init --tls-name registry.example.com; adsum init --renew")
@click.option(
    "--renew",
    is_flag=True,
    help="Sign the certificates of the authority and of this node anew, with the same keys. This mends a registry "
    "whose certificates have all expired. A running node takes them over by itself.",
)
@click.option(
    "--new-authority",
    is_flag=True,
    help="Make a new authority and a new admin token in place of those in the folder, for a registry whose key was "
    "stolen or lost. Stop all nodes first, start this one, and join every host again.",
)
@with_settings(ServeConfig, exclude=_UNUSED)
def init(loaded: Settings, renew: bool, new_authority: bool) -> None:
    """Make what a secure registry node needs: an authority, a certificate and an admin token.

    `adsum serve --secure` makes the same at its first start. Whatever exists is kept, so that the command may be run
    again. The certificate is for the names and addresses of this host; --tls-name adds further ones.

    The files are in security/ below the data folder, and only their owner may read them. Whoever has authority.key can
    prove to be anyone: keep a copy of it in a safe place.
    """
    config = loaded.get(ServeConfig)
    try:
        if config.tls_cert:
            raise Invalid("tls_cert", "is your own certificate, and then there is nothing to make: start `adsum serve`")
        if renew and new_authority:
            raise CommandFailed(ExitCode.USAGE, "--renew keeps the authority, and --new-authority does not: choose one")
        _init(config, loaded, renew=renew, new_authority=new_authority)
    except Invalid as error:
        raise loaded.config_error(error) from None


def _init(config: ServeConfig, loaded: Settings, *, renew: bool, new_authority: bool) -> None:
    from adsum.certificates.server_names import ServerNames
    from adsum.node_security import node_files
    from adsum.node_security.host_names import find_server_names
    from adsum.node_security.security_folder import ADMIN_TOKEN, SecurityFolder, SecurityFolderInUse

    folder = SecurityFolder(config.data_folder(config.store))
    folder.create()
    names, pair = find_server_names(config), node_files.load_pair(folder)
    if pair is not None:  # The node may run with further names, which are not among the flags of this command.
        names = names.merged(ServerNames.of_certificate(pair.leaf))
    if new_authority:
        try:
            folder.lock()
        except SecurityFolderInUse:  # The node would mix the old authority with the new one.
            raise CommandFailed(
                ExitCode.FAILURE, f"a node uses {folder.path}: stop it, and all others of this registry, and try again"
            ) from None
        write = node_files.prepare_new_authority
    else:
        write = node_files.renew_files if renew else node_files.prepare_files
    files = write(folder, config.node, names, time.time())
    folder.unlock()
    made = [*files.made, ADMIN_TOKEN] if node_files.prepare_admin_token(folder) else files.made
    for line in _report(folder, files, made, renew=renew):
        output.print_line(line)
    output.print_line(f"next: {_serve_command(config, loaded)}")


def _report(folder: SecurityFolder, files: MadeFiles, made: Sequence[str], *, renew: bool) -> list[str]:
    from adsum.certificates.expiry import format_expiry
    from adsum.certificates.server_names import ServerNames
    from adsum.node_security.security_folder import ADMIN_TOKEN

    names = ", ".join(ServerNames.of_certificate(files.pair.leaf).texts())
    expires = files.pair.leaf.not_valid_after_utc.timestamp()
    verb = "renewed" if renew else "made"
    return [
        f"{verb} in {folder.path}: {', '.join(made)}" if made else f"everything is in {folder.path} already",
        f"the authority is valid until {format_expiry(files.authority.expires)}; its hash is {files.authority.hash}",
        f"the certificate is valid until {format_expiry(expires)}, and the node renews it; it names {names}",
        f"the admin token is in {folder.file(ADMIN_TOKEN)}; commands of this user on this host find it by themselves",
    ]


def _serve_command(config: ServeConfig, loaded: Settings) -> str:
    """Returns the command that starts the node, with the flags that were given to this one."""
    words = ["adsum", "serve", "--secure"]
    if config.listen == DEFAULT_LISTEN:
        words += ["--listen", EXAMPLE_LISTEN]
    if config.xds == DEFAULT_XDS_LISTEN:
        words += ["--xds", EXAMPLE_XDS]
    for name in USED_SETTINGS:
        if loaded.origins[name] == flag_name(name):
            values = getattr(config, name)
            for value in values if isinstance(values, tuple) else (values,):
                words += [flag_name(name), str(value)]
    return shlex.join(words)
