"""The commands of docs/security.md run on a secure registry, and every page names commands and options that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from adsum.cli.root import root
from adsum.config.serve import ServeConfig
from tests.support.registry_daemon import RunningDaemon

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
BLOCK = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
SPAN = re.compile(r"`([^`]+)`|^ {4}(.+)$", re.MULTILINE)
"""Code in a paragraph: between backticks, or an indented line."""
COMMAND = re.compile(r"(?<![/\w])adsum ((?:[a-z][a-z-]*)(?: [^|;#>&\n]*)?)")
"""A command of Adsum, up to the end of it in a shell."""
SECRET = re.compile(r"adsum_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def secure_daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    config = ServeConfig(
        store="memory:", data=str(tmp_path / "data"), secure=True, listen="127.0.0.1:0", xds="127.0.0.1:0"
    )
    daemon = RunningDaemon(config)
    yield daemon
    daemon.stop()


def _run(text: str, folder: Path, credentials: Path) -> subprocess.CompletedProcess[str]:
    """Runs a text in bash, as on a host with these credentials."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ADSUM_", "XDG_", "GRPC_"))}
    environ = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ADSUM_CREDENTIALS": str(credentials),
        "ADSUM_CONFIG": str(folder / "adsum.toml"),
        "XDG_CACHE_HOME": str(folder),
    }
    (folder / "adsum.toml").touch()
    command = ["bash", "--norc", "-euo", "pipefail", "-c", text]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def _operator(tmp_path: Path) -> Path:
    return tmp_path / "data" / "security" / "operator"


@pytest.mark.usefixtures("secure_daemon")
def test_the_commands_about_tokens_run_and_print_no_secret(tmp_path: Path) -> None:
    (block,) = (text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "adsum token create" in text)
    done = _run(block, tmp_path, _operator(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not SECRET.search(done.stdout + done.stderr)
    assert SECRET.fullmatch((tmp_path / "orders-token-2").read_text().strip())


@pytest.mark.usefixtures("secure_daemon")
@pytest.mark.parametrize("role", ["client", "gateway"])
def test_a_host_joins_by_one_line_and_works_without_options(role: str, tmp_path: Path) -> None:
    invite = f"adsum token invite --for {role}"
    assert f"| `{invite}` |" in PAGE
    joined = tmp_path / "joined"
    done = _run(f"{invite} | adsum join --folder {joined}", tmp_path, _operator(tmp_path))
    assert done.returncode == 0, done.stderr
    done = _run("adsum whoami; adsum ls", tmp_path, joined)
    assert done.returncode == 0, done.stderr
    assert "token" in done.stdout
    assert _run("adsum token ls", tmp_path, joined).returncode == 77, "it is no operator"


@pytest.mark.usefixtures("secure_daemon")
def test_a_line_that_leaked_can_be_ended_by_the_id_in_it(tmp_path: Path) -> None:
    assert "`adsum token revoke-invite ID`, where ID is the part of the line between its last `/` and the `.`" in PAGE
    line = _run("adsum token invite --for client", tmp_path, _operator(tmp_path)).stdout.strip()
    id = line.rpartition("/")[2].partition(".")[0]
    assert _run(f"adsum token revoke-invite {id}", tmp_path, _operator(tmp_path)).returncode == 0
    (tmp_path / "line").write_text(line)
    assert _run("adsum join line", tmp_path, tmp_path / "joined").returncode == 77


def _commands(text: str) -> Iterator[str]:
    codes = BLOCK.findall(text)
    for paragraph in BLOCK.sub("\n\n", text).split("\n\n"):
        codes += (span.replace("\n", " ") or line for span, line in SPAN.findall(paragraph))
    for code in codes:
        yield from COMMAND.findall(code.replace("\\\n", " "))


def _unknown_words(command: str) -> list[str]:
    """Returns the options of a command that it does not have; its name if there is no such command."""
    known: click.Command = root
    words = command.split()
    context = click.Context(root)
    while words and isinstance(known, click.Group) and not words[0].startswith("-"):
        found = known.get_command(context, words[0])
        if found is None:
            return [words[0]]
        known = found
        del words[0]
    own = words[: words.index("--")] if "--" in words else words
    options = {name for one in known.get_params(click.Context(known)) for name in (*one.opts, *one.secondary_opts)}
    named = [word.partition("=")[0].rstrip(",.:)") for word in own if re.match(r"--[a-z]", word)]
    return [word for word in named if word not in {*options, "--help"}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_commands_and_options_that_exist(page: Path) -> None:
    wrong = {command: words for command in _commands(page.read_text()) if (words := _unknown_words(command))}
    assert not wrong


@pytest.mark.parametrize("wrong", ["serve --sekure", "token invent", "jion", "token invite --four client"])
def test_a_wrong_command_in_a_page_is_noticed(wrong: str) -> None:
    assert [_unknown_words(command) for command in _commands(f"Run `adsum {wrong}` there.")] != [[]]
