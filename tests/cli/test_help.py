"""The help of the command line, and what it imports."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from adsum.cli.commands.completion import SHELLS
from adsum.cli.root import COMMANDS, root
from tests.cli.conftest import Adsum


def test_help_lists_every_command(adsum: Adsum) -> None:
    result = adsum("--help")
    assert result.code == 0
    for name, entry in COMMANDS.items():
        assert name in result.out
        assert entry.summary in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_description_and_an_example(adsum: Adsum, name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    paragraphs = (command.help or "").strip().split("\n\n")
    assert len(paragraphs) >= 2 or len(paragraphs[0]) > 80, "the description needs more than one line"
    assert f"adsum {name}" in (command.epilog or "")
    assert adsum(name, "--help").code == 0


READS = ["whoami", "token ls", "token show", "ls", "resolve", "watch", "status", "history", "route ls", "route check"]
WRITES = [
    "token create",
    "token rotate",
    "token revoke",
    "token invite",
    "drain",
    "maintenance",
    "resume",
    "deregister",
    "route rm",
]


@pytest.mark.parametrize("name", READS + WRITES)
def test_commands_that_read_or_change_one_thing_have_a_json_flag(name: str) -> None:
    command: click.Command | None = root
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), part)
    assert command is not None
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


def test_help_imports_none_of_the_commands() -> None:
    probe = (
        "import sys; from adsum.cli.main import run; run(['--help']);"
        "print([name for name in sys.modules if name in ('asyncio', 'httpx', 'msgspec', 'rich', 'uvicorn')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_misspelled_command_gets_a_suggestion(adsum: Adsum) -> None:
    result = adsum("resovle", "orders")
    assert (result.code, result.out) == (2, "")
    assert "Did you mean resolve?" in result.err


def test_help_of_the_demo_mentions_the_gateway(adsum: Adsum) -> None:
    assert "a gateway" in " ".join(adsum("demo", "--help").out.split())


def test_the_version_is_printed(adsum: Adsum) -> None:
    import adsum as package

    assert adsum("--version").out == f"adsum {package.__version__}\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_completion(adsum: Adsum, shell: str) -> None:
    script = adsum("completion", shell).out
    assert "_ADSUM_COMPLETE" in script
    assert "%(" not in script


def test_the_completion_for_bash_is_bash(adsum: Adsum) -> None:
    script = adsum("completion", "bash").out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_without_click_one_sentence_names_the_package() -> None:
    probe = "import sys; sys.modules['click'] = None; from adsum.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "adsum: the command line needs more than the library: pip install 'adsum[cli]'\n"


def test_an_example_file_in_help_keeps_its_lines(adsum: Adsum) -> None:
    help = adsum("route", "apply", "--help").out
    assert "\\b" not in help
    assert '  name = "shop"\n' in help
