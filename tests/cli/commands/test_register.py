"""`adsum register`, against a running registry."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from adsum.core.access.tokens import format_token
from tests.cli.conftest import Adsum

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon


def test_the_id_of_a_live_process_is_taken_only_with_take_over(
    registry: RunningDaemon, adsum: Adsum, started: Callable[..., subprocess.Popen[str]]
) -> None:
    with socket.socket() as live:
        live.bind(("127.0.0.1", 0))
        live.listen()
        port = str(live.getsockname()[1])
        holding = started("register", "cache", "--port", port, "--id", "c")
        assert holding.stderr is not None
        assert "is listed at" in holding.stderr.readline()
        arguments = ("register", "cache", "--port", "6379", "--id", "c", "--address", "127.0.0.2")
        refused = adsum(*arguments, "--ttl", "none")
        assert refused.code == 1
        for words in (f"http://127.0.0.1:{port}", "http://127.0.0.2:6379", "--take-over"):
            assert words in refused.err
        waiting = started(*arguments)
        assert waiting.stderr is not None
        assert "is not listed yet: the id cache/c belongs to a live process" in waiting.stderr.readline()
        assert adsum(*arguments, "--ttl", "none", "--take-over").code == 0
        assert adsum("resolve", "cache").out == "127.0.0.2:6379\n"


def test_register_keeps_an_instance_listed_until_it_is_stopped(
    registry: RunningDaemon, adsum: Adsum, started: Callable[..., subprocess.Popen[str]]
) -> None:
    holding = started("register", "cache", "--port", "6379", "--id", "c")
    assert holding.stderr is not None
    assert holding.stderr.readline() == "cache/c is listed at 127.0.0.1:6379; Ctrl-C deregisters it\n"
    assert adsum("resolve", "cache").out == "127.0.0.1:6379\n"
    holding.send_signal(signal.SIGTERM)
    assert holding.wait(20) == 0
    deadline = time.monotonic() + 10
    while adsum("ls", "cache").code != 3:
        assert time.monotonic() < deadline


def test_register_names_the_reason_why_it_may_not_register(
    registry: RunningDaemon, started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(format_token("ab" * 8, "s" * 43))
    waiting = started("register", "cache", "--port", "6379", "--token-file", str(token))
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    assert "is not listed yet: the registry refused (401)" in line
    assert f"the token comes from {token}" in line
