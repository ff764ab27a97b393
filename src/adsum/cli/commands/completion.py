"""`adsum completion`."""

from __future__ import annotations

from typing import Final, cast

import click
from click.shell_completion import ShellComplete, get_completion_class

from adsum.cli.root import root

SHELLS: Final = ("bash", "zsh", "fish")


@click.command(epilog="Example: adsum completion bash > ~/.local/share/bash-completion/completions/adsum")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, flags, and the names of services and instances.

    bash: put it into ~/.local/share/bash-completion/completions/adsum. zsh: into a folder of $fpath, as _adsum. fish:
    into ~/.config/fish/completions/adsum.fish. Names are asked of the registry when Tab is pressed.
    """
    kind = cast("type[ShellComplete]", get_completion_class(shell))
    # Not `source()`: that starts a bash to ask for its version.
    made = kind(root, {}, "adsum", "_ADSUM_COMPLETE")
    click.echo(made.source_template % made.source_vars())
