"""The root command: what there is, told without importing any of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, NamedTuple, cast

import click

from adsum.version import __version__


class CommandEntry(NamedTuple):
    """A command: what it does in a line, and where it is."""

    summary: str
    import_path: str


COMMAND_GROUPS: Final[Mapping[str, Mapping[str, CommandEntry]]] = MappingProxyType(
    {
        "See it": {
            "demo": CommandEntry(
                "Watch a registry, services and a caller live through a bad day", "adsum.cli.commands.demo:demo"
            ),
        },
        "The registry": {
            "serve": CommandEntry("Run a registry node", "adsum.cli.commands.serve:serve"),
            "status": CommandEntry("Show how the registry fares", "adsum.cli.commands.status:status"),
            "backup": CommandEntry(
                "Copy the registry's file, also while it is in use", "adsum.cli.commands.backup:backup"
            ),
            "restore": CommandEntry(
                "Put a backup in place of the registry's file", "adsum.cli.commands.backup:restore"
            ),
        },
        "Providing": {
            "run": CommandEntry("Wrap any program: list it while it answers", "adsum.cli.commands.run:run"),
            "register": CommandEntry("List an instance and keep it listed", "adsum.cli.commands.register:register"),
            "deregister": CommandEntry("Take an instance out of the catalog", "adsum.cli.commands.register:deregister"),
        },
        "Finding": {
            "ls": CommandEntry("List services, or the instances of one", "adsum.cli.commands.resolve:ls"),
            "resolve": CommandEntry("Print the address of an instance to call", "adsum.cli.commands.resolve:resolve"),
            "watch": CommandEntry("Print every change as it happens", "adsum.cli.commands.watch:watch"),
            "history": CommandEntry("Show why instances came and went", "adsum.cli.commands.status:history"),
        },
        "Operating": {
            "drain": CommandEntry("Have an instance called no more, then return", "adsum.cli.commands.status:drain"),
            "maintenance": CommandEntry(
                "Take an instance out of use for a while", "adsum.cli.commands.status:maintenance"
            ),
            "resume": CommandEntry("End a drain or a maintenance", "adsum.cli.commands.status:resume"),
            "forget": CommandEntry(
                "Take a service without an instance off the lists", "adsum.cli.commands.status:forget"
            ),
        },
        "The gateway": {
            "gateway": CommandEntry(
                "Take requests and pass them on to who is here", "adsum.cli.commands.gateway:gateway"
            ),
            "grpc-bootstrap": CommandEntry(
                "Print what gRPC clients need to call without a proxy",
                "adsum.cli.commands.grpc_bootstrap:grpc_bootstrap",
            ),
            "route": CommandEntry("Say which requests gateways send where", "adsum.cli.commands.route:route"),
        },
        "The shell": {
            "completion": CommandEntry(
                "Print the completion script of a shell", "adsum.cli.commands.completion:completion"
            ),
        },
    }
)
"""Every command, as `--help` tells them."""

COMMANDS: Final[Mapping[str, CommandEntry]] = MappingProxyType(
    {name: entry for group in COMMAND_GROUPS.values() for name, entry in group.items()}
)


class RootGroup(click.Group):
    """Imports a command when it is asked for."""

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
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMAND_GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in group.items()], col_max=14)


@click.group(
    cls=RootGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 69 registry unavailable, 75 try again, "
    "78 a setting is wrong, 124 not in time, 130 interrupted.",
)
@click.version_option(__version__, "-V", "--version", message="adsum %(version)s")
def root() -> None:
    """Adsum: services say that they are here, and everyone who needs them finds them.

    Start with `adsum demo`. Then `adsum serve` in one terminal, and in another
    `adsum run --service hello --port 0 -- sh -c 'exec python3 -m http.server $PORT'`,
    `adsum ls`, and `curl $(adsum resolve hello)`.

    Settings are flags, else ADSUM_* variables, else a TOML file ($ADSUM_CONFIG,
    $XDG_CONFIG_HOME/adsum/adsum.toml or /etc/adsum/adsum.toml); --show-config tells which.
    """
