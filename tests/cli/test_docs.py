"""The commands of README and docs/ run as they are written, in bash and in zsh."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import need

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/registry.md", "docs/gateway.md", "docs/grpc.md")
BLOCKS = {
    f"{page} {number}": text
    for page in PAGES
    for number, text in enumerate(re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
}
LEFT_OUT = re.compile(r"^(make|pip|python3 -m venv|adsum serve|adsum gateway|adsum backup|adsum restore|systemctl)\b")
"""Commands that set up a machine, that keep running, or that need a file of the reader."""
COMPLAINTS = re.compile(
    r"no matches found|not found|parse error|syntax error|unexpected EOF|unmatched|Usage:|Error:|adsum: |curl: \((?!28)"
)
"""Errors of a shell, curl or adsum (exit code 28 of curl ends a watch after -m, and is none)."""
Run = Callable[[str], tuple[str, str]]


def _runnable(text: str) -> str:
    """Returns a block without the commands that are left out."""
    return "\n".join(line for line in text.splitlines() if not LEFT_OUT.match(line))


COMMANDS = {name: _runnable(text) for name, text in BLOCKS.items() if _runnable(text).strip()}


@pytest.fixture(params=["bash", "zsh"])
def run(request: pytest.FixtureRequest, daemon: RunningDaemon, tmp_path: Path) -> Run:
    """Runs a text as if pasted into a shell; returns standard output and standard error."""
    shell = [str(need("zsh")), "-f"] if request.param == "zsh" else ["bash", "--norc"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ADSUM_", "XDG_", "GRPC_"))}
    environ = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ADSUM_URL": daemon.url,
        "ADSUM_CONFIG": str(tmp_path / "adsum.toml"),
        "XDG_CACHE_HOME": str(tmp_path),
    }
    (tmp_path / "adsum.toml").touch()

    def run(text: str) -> tuple[str, str]:
        text = text.replace("http://127.0.0.1:23786", daemon.url).replace("-m 10 ", "-m 1 ")
        with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
            process = subprocess.Popen(
                [*shell, "-c", text], env=environ, cwd=tmp_path, stdout=out, stderr=err, start_new_session=True
            )
            try:
                process.wait(60.0)
            finally:
                with contextlib.suppress(ProcessLookupError):  # It has left no program in the background.
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return (tmp_path / "out").read_text(), (tmp_path / "err").read_text()

    return run


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) >= 5, COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_a_page_run_without_errors(name: str, run: Run) -> None:
    if "curl" in COMMANDS[name]:
        need("curl")
    before = 'BASE="$ADSUM_URL/api/v1"\n' if "$BASE" in COMMANDS[name] else ""
    out, err = run(before + COMMANDS[name])
    errors = [line for line in err.splitlines() if COMPLAINTS.search(line)]
    assert not errors, err
    if name.startswith("README"):
        assert "Directory listing" in out, "the program is called by its name"


@pytest.mark.parametrize("wrong", ["adsum drain", "adsum-nothing", "curl 'http://"])
def test_a_wrong_command_is_noticed(wrong: str, run: Run) -> None:
    assert COMPLAINTS.search(run(wrong)[1])


@pytest.mark.parametrize("run", ["zsh"], indirect=True)
def test_a_pattern_that_zsh_rejects_is_noticed(run: Run) -> None:
    assert COMPLAINTS.search(run("curl $ADSUM_URL/api/v1/services/orders?status=passing")[1])
