"""The scanner of secrets finds what it must find, so that scenarios that find nothing mean something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adsum.core.access.join_line import JoinLine
from adsum.core.access.tokens import format_token
from tests.scenarios.processes import wait_until
from tests.scenarios.secure.secret_scanner import SecretScanner, secrets_of_hosts

SECRET = "a_b-" + "s" * 39
TOKEN = format_token("ab" * 8, SECRET)
LINE = str(JoinLine(["10.0.0.5:23786"], "cd" * 8, "t" * 43, "ab" * 32))
WAIT = "import sys; sys.stdin.read()"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("secret", [TOKEN, LINE])
@pytest.mark.parametrize("place", ["cmdline", "environ"])
async def test_a_secret_in_a_process_is_found(secret: str, place: str) -> None:
    argv = [sys.executable, "-c", WAIT, *([secret] if place == "cmdline" else [])]
    environ = {"SECRET": secret} if place == "environ" else {}
    scanner = SecretScanner()
    with subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE) as process:  # noqa: ASYNC220 - it does not block
        before = scanner.count
        await wait_until(lambda: scanner.count > before + 2)
        process.kill()
    found = scanner.stop()
    assert f"/proc/{process.pid}/{place}" in found[secret.encode()]


def test_the_secrets_of_hosts_are_those_in_their_files_and_in_join_lines(tmp_path: Path) -> None:
    folder, line = tmp_path / "host", tmp_path / "line"
    folder.mkdir()
    line.write_text(f"{LINE}\n")
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "client.key").write_text("-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n")
    assert secrets_of_hosts(tmp_path, [line]) == {SECRET, "t" * 43, "MIGH"}
