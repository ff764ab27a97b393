"""The root command. It lists all commands without importing them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, NamedTuple, cast

import click

from adsum.version import __version__


class CommandEntry(NamedTuple):
    """A command: a summary in one line, and the import path of its function."""

    summary: str
    import_path: str


COMMAND_GROUPS: Final[Mapping[str, Mapping[str, CommandEntry]]] = MappingProxyType(
    {
        "Demo": {
            "demo": CommandEntry(
                "Show how calls go on while instances and the registry fail", "adsum.cli.commands.demo:demo"
            ),
        },
        "Registry": {
            "serve": CommandEntry("Run a registry node", "adsum.cli.commands.serve:serve"),
            "init": CommandEntry("Make the certificates and the admin token of a node", "adsum.cli.commands.init:init"),
            "status": CommandEntry("Show the state of a registry node", "adsum.cli.commands.status:status"),
            "backup": CommandEntry(
                "Copy the registry's SQLite file, even while it runs", "adsum.cli.commands.backup:backup"
            ),
            "restore": CommandEntry(
                "Replace the registry's SQLite file by a backup", "adsum.cli.commands.backup:restore"
            ),
        },
        "Register instances": {
            "run": CommandEntry("Run a program and register it while it answers", "adsum.cli.commands.run:run"),
            "register": CommandEntry(
                "Register an instance and renew its lease", "adsum.cli.commands.register:register"
            ),
            "deregister": CommandEntry("Remove an instance from the catalog", "adsum.cli.commands.register:deregister"),
        },
        "Find instances": {
            "ls": CommandEntry("List services, or the instances of one", "adsum.cli.commands.ls:ls"),
            "resolve": CommandEntry("Print the address of an instance to call", "adsum.cli.commands.resolve:resolve"),
            "watch": CommandEntry("Print every change as it happens", "adsum.cli.commands.watch:watch"),
            "history": CommandEntry("Show why instances were added and removed", "adsum.cli.commands.history:history"),
        },
        "Operate instances": {
            "drain": CommandEntry(
                "Stop calls to an instance, and wait until they have stopped", "adsum.cli.commands.overrides:drain"
            ),
            "maintenance": CommandEntry(
                "Take an instance out of use for some time", "adsum.cli.commands.overrides:maintenance"
            ),
            "resume": CommandEntry("End a drain or maintenance", "adsum.cli.commands.overrides:resume"),
            "forget": CommandEntry(
                "Remove a service without instances from the lists", "adsum.cli.commands.forget:forget"
            ),
        },
        "Gateway": {
            "gateway": CommandEntry(
                "Run a gateway that forwards requests to live instances", "adsum.cli.commands.gateway:gateway"
            ),
            "grpc-bootstrap": CommandEntry(
                "Print the bootstrap file of gRPC clients without a proxy",
                "adsum.cli.commands.grpc_bootstrap:grpc_bootstrap",
            ),
            "route": CommandEntry("Manage the routes of gateways", "adsum.cli.commands.route:route"),
        },
        "Access": {
            "join": CommandEntry("Join a registry by a line that it printed", "adsum.cli.commands.join:join"),
            "token": CommandEntry("Manage tokens, and invite hosts", "adsum.cli.commands.token:token"),
            "whoami": CommandEntry("Show who the registry takes you for", "adsum.cli.commands.whoami:whoami"),
        },
        "Shell": {
            "completion": CommandEntry(
                "Print the completion script of a shell", "adsum.cli.commands.completion:completion"
            ),
        },
    }
)
"""All commands in the order and under the titles of `--help`."""

COMMANDS: Final[Mapping[str, CommandEntry]] = MappingProxyType(
    {name: entry for group in COMMAND_GROUPS.values() for name, entry in group.items()}
)


class RootGroup(click.Group):
    """The root group. It imports a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].import_path.partition(":")
        return cast("click.Command", getattr(import_module(module), name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"Did you mean {near[0]}?" if near else f"The commands are {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMAND_GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in group.items()], col_max=14)


@click.group(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 69 registry unavailable, 75 try again later, "
    "77 not allowed, 78 invalid setting, 124 timeout, 130 interrupted.",
)
@click.version_option(__version__, "-V", "--version", message="adsum %(version)s")
def root() -> None:
    """Adsum: service discovery. Services register, and programs that need them find live instances.

    Start with `adsum demo`. Then run `adsum serve` in one terminal, and in another
    `adsum run --service hello --port 0 -- sh -c 'exec python3 -m http.server $PORT'`,
    `adsum ls`, and `curl $(adsum resolve hello)`.

    On a network: run `adsum serve --secure --listen 0.0.0.0:23786` on one host, `adsum token invite --for client`
    beside it, and `adsum join` with the line that it prints on each other host.

    Settings come from flags, else from ADSUM_* variables, else from a TOML file ($ADSUM_CONFIG,
    $XDG_CONFIG_HOME/adsum/adsum.toml or /etc/adsum/adsum.toml). --show-config prints each value and its source.
    """
