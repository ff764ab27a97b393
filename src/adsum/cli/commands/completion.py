"""The command `adsum completion`."""

from __future__ import annotations

from typing import Final, cast

import click
from click.shell_completion import ShellComplete, get_completion_class

from adsum.cli.root import root

SHELLS: Final = ("bash", "zsh", "fish")


@click.command(epilog="Example: adsum completion bash > ~/.local/share/bash-completion/completions/adsum")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script with which SHELL completes commands, flags, and names of services and instances.

    bash: save it as ~/.local/share/bash-completion/completions/adsum. zsh: save it as _adsum in a folder of $fpath.
    fish: save it as ~/.config/fish/completions/adsum.fish. On Tab, names are requested from the registry.
    """
    kind = cast("type[ShellComplete]", get_completion_class(shell))
    # `source()` is not used: it starts a bash to find out its version.
    made = kind(root, {}, "adsum", "_ADSUM_COMPLETE")
    click.echo(made.source_template % made.source_vars())
