"""`adsum run` with real programs and a real registry."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from adsum.config.serve import ServeConfig
from adsum.run.port import claim_free_port
from adsum.run.supervisor import UNDRAINED_WARNING
from tests.run.conftest import SERVER, Wrap, eventually, has_ended, listing_of

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon

UNUSED_URL = "http://127.0.0.1:1"


def _python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def _history(daemon: RunningDaemon) -> list[tuple[str, str]]:
    """Returns cause and reason of every change, the oldest first."""
    from adsum import SyncClient

    with SyncClient(daemon.url, cache=False) as client:
        found = client.run(lambda client: client.api.changes("orders"))
    return [(change.cause, change.reason) for change in reversed(found.changes)]


def test_a_program_is_registered_when_it_answers_and_deregistered_when_it_is_stopped(
    daemon: RunningDaemon, wrap: Wrap, port: int
) -> None:
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port), "--check", "http:/health?interval=200ms")
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    listing = listing_of(daemon, "a")
    assert listing is not None
    assert listing.instance.authority == f"127.0.0.1:{port}"
    eventually("it to pass", lambda: (listing := listing_of(daemon, "a")) and listing.status == "passing")
    wrapped.signal(signal.SIGTERM)
    assert wrapped.code() == 128 + signal.SIGTERM
    assert UNDRAINED_WARNING not in wrapped.output
    assert listing_of(daemon, "a") is None
    assert _history(daemon)[-2:] == [("drained", "received SIGTERM"), ("deregistered", "stopped by SIGTERM")]


def test_the_environment_describes_the_instance_to_the_program(daemon: RunningDaemon, wrap: Wrap, port: int) -> None:
    print_variables = (
        "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k[:5] in ('PORT', 'ADSUM')}))"
    )
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port), "--zone", "z", program=_python(print_variables))
    assert wrapped.code() == 0
    variables = json.loads(wrapped.output.splitlines()[0])
    assert variables == {
        "PORT": str(port),
        "ADSUM_PORT": str(port),
        "ADSUM_SERVICE": "orders",
        "ADSUM_ID": "a",
        "ADSUM_URL": daemon.url,
        "ADSUM_ZONE": "z",
    }


def test_port_0_picks_a_free_port_below_the_ephemeral_ports(daemon: RunningDaemon, wrap: Wrap) -> None:
    wrap(daemon.url, "--id", "a", "--port", "0")
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    listing = listing_of(daemon, "a")
    assert listing is not None
    assert 1_024 < listing.instance.port < 32_768


def test_a_program_is_not_registered_before_it_answers(
    daemon: RunningDaemon, wrap: Wrap, port: int, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    late = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\n{SERVER}"
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port), program=_python(late))
    eventually("the program to run", wrapped.children)
    assert listing_of(daemon, "a") is None
    go.touch()
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    assert "up" in wrapped.output


def test_a_program_that_never_answers_is_stopped_and_never_registered(
    daemon: RunningDaemon, wrap: Wrap, port: int
) -> None:
    wrapped = wrap(daemon.url, "--port", str(port), "--ready-timeout", "300ms", program=("sleep", "600"))
    assert wrapped.code() == 124
    assert f"nothing answers at port {port}" in wrapped.output
    assert _history(daemon) == []


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        (("sh", "-c", "exit 3"), 3, "exited with code 3"),
        (("sh", "-c", "kill -SEGV $$"), 128 + signal.SIGSEGV, "was killed by SIGSEGV"),
        (("no-such-program",), 127, "no such program"),
        (("/",), 126, "can't start /"),
    ],
)
def test_the_exit_code_is_that_of_the_program(wrap: Wrap, program: tuple[str, ...], code: int, words: str) -> None:
    wrapped = wrap(UNUSED_URL, program=program)
    assert wrapped.code() == code
    assert words in wrapped.output
    assert "Traceback" not in wrapped.output


def test_a_program_that_dies_is_deregistered_at_once_with_the_reason(
    daemon: RunningDaemon, wrap: Wrap, port: int
) -> None:
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port))
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    (child,) = wrapped.children()
    os.kill(child, signal.SIGKILL)
    assert wrapped.code() == 128 + signal.SIGKILL
    assert listing_of(daemon, "a") is None
    assert _history(daemon)[-1] == ("deregistered", "the program was killed by SIGKILL")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_are_forwarded_at_once(wrap: Wrap, number: signal.Signals) -> None:
    catch = (
        f"import signal, sys; signal.signal({int(number)}, lambda *_: sys.exit(42)); print('up', flush=True);"
        "signal.pause()"
    )
    wrapped = wrap(UNUSED_URL, program=_python(catch))
    wrapped.wait_for_output("up")
    wrapped.signal(number)
    assert wrapped.code() == 42


def test_the_drain_comes_before_the_signal(daemon: RunningDaemon, wrap: Wrap, port: int) -> None:
    stopping = f"""
import signal, sys, urllib.request, json
def stop(*_):
    with urllib.request.urlopen("{daemon.url}/api/v1/services/orders/instances/a") as answer:
        print("drain:", json.load(answer)["instance"]["status"], flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
{SERVER}
"""
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port), program=_python(stopping))
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    wrapped.signal(signal.SIGTERM)
    assert wrapped.code() == 0
    assert "drain: draining" in wrapped.output


def test_the_program_receives_sigint_after_the_drain(daemon: RunningDaemon, wrap: Wrap, port: int) -> None:
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port))
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    wrapped.signal(signal.SIGINT)
    assert wrapped.code() == 128 + signal.SIGINT
    assert _history(daemon)[-2] == ("drained", "received SIGINT")


def test_a_program_that_ignores_the_signal_is_killed_in_time(wrap: Wrap, port: int) -> None:
    ignoring = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SERVER}"
    wrapped = wrap(UNUSED_URL, "--port", str(port), "--stop-timeout", "200ms", program=_python(ignoring))
    wrapped.wait_for_output("up")
    wrapped.signal(signal.SIGTERM)
    assert wrapped.code() == 128 + signal.SIGKILL
    assert "killing the program" in wrapped.output


def test_a_second_signal_kills_the_program_at_once(wrap: Wrap, port: int) -> None:
    ignoring = f"import signal; signal.signal(signal.SIGTERM, lambda *_: print('received', flush=True))\n{SERVER}"
    wrapped = wrap(UNUSED_URL, "--port", str(port), "--stop-timeout", "10m", program=_python(ignoring))
    wrapped.wait_for_output("up")
    wrapped.signal(signal.SIGTERM)
    wrapped.wait_for_output("received")
    wrapped.signal(signal.SIGTERM)
    assert wrapped.code() == 128 + signal.SIGKILL


def test_a_program_that_a_signal_ends_before_the_drain_causes_a_warning(
    daemon: RunningDaemon, wrap: Wrap, port: int
) -> None:
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port))
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    (child,) = wrapped.children()
    os.kill(child, signal.SIGTERM)
    assert wrapped.code() == 128 + signal.SIGTERM
    assert UNDRAINED_WARNING in wrapped.output


def test_a_program_that_stops_listening_during_the_drain_causes_a_warning(
    daemon: RunningDaemon, wrap: Wrap, port: int
) -> None:
    close = "def close(*_):\n    server.server_close(); print('closed', flush=True); signal.pause()\n"
    program = SERVER.replace("print(", f"{close}signal.signal(signal.SIGUSR2, close)\nprint(", 1)
    wrapped = wrap(daemon.url, "--id", "a", "--port", str(port), program=_python(program))
    eventually("it to be listed", lambda: listing_of(daemon, "a"))
    wrapped.signal(signal.SIGUSR2)
    wrapped.wait_for_output("closed")
    wrapped.signal(signal.SIGTERM)
    assert wrapped.code() == 128 + signal.SIGTERM
    assert UNDRAINED_WARNING in wrapped.output


def test_signals_during_exit_do_not_change_the_exit_code(wrap: Wrap, port: int) -> None:
    wrapped = wrap(UNUSED_URL, "--port", str(port))
    wrapped.wait_for_output("up")
    while wrapped.process.poll() is None:
        wrapped.signal(signal.SIGTERM)
        time.sleep(0.005)
    assert wrapped.code() in (128 + signal.SIGTERM, 128 + signal.SIGKILL)


def test_a_program_starts_without_a_registry_and_registers_when_one_is_up(wrap: Wrap, port: int) -> None:
    from tests.support.registry_daemon import RunningDaemon

    other = claim_free_port(Random())
    address = f"127.0.0.1:{other.port}"
    wrapped = wrap(f"http://{address}", "--id", "a", "--port", str(port))
    wrapped.wait_for_output("up")
    wrapped.wait_for_output("not registered yet")
    daemon = RunningDaemon(ServeConfig(listen=address, xds="off", store="memory:", node="test"))
    try:
        eventually("it to be listed", lambda: listing_of(daemon, "a"))
    finally:
        daemon.stop()
        other.release()
    wrapped.signal(signal.SIGTERM)
    assert wrapped.code() == 128 + signal.SIGTERM


def test_the_program_never_outlives_a_killed_wrapper(wrap: Wrap, port: int) -> None:
    wrapped = wrap(UNUSED_URL, "--port", str(port))
    wrapped.wait_for_output("up")
    (child,) = wrapped.children()
    wrapped.signal(signal.SIGKILL)
    wrapped.code()
    eventually("the program to end", lambda: has_ended(child))


def test_orphans_of_the_program_are_reaped_and_ended(wrap: Wrap, port: int) -> None:
    # The shell ends at once, so its two sleeps become orphans. The short one must not stay a zombie.
    leave = f"import subprocess; subprocess.run(['sh', '-c', 'sleep 0.1 & sleep 600 & true'])\n{SERVER}"
    wrapped = wrap(UNUSED_URL, "--port", str(port), program=_python(leave))
    wrapped.wait_for_output("up")
    eventually("the short one to be reaped", lambda: len(wrapped.children()) == 2)
    children = wrapped.children()
    assert not [pid for pid in children if has_ended(pid)], "a zombie"
    wrapped.signal(signal.SIGTERM)
    wrapped.code()
    eventually("the long one to end", lambda: all(has_ended(pid) for pid in children))


def test_a_program_is_not_started_if_another_one_answers_on_its_port(wrap: Wrap, port: int) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        wrapped = wrap(UNUSED_URL, "--port", str(port))
        assert wrapped.code() == 75
        assert f"another program answers at 127.0.0.1, port {port}" in wrapped.output
        assert "--shared-port" in wrapped.output
        shared = wrap(UNUSED_URL, "--port", str(port), "--shared-port", program=_python("raise SystemExit(7)"))
        assert shared.code() == 7


def test_a_program_on_the_same_port_of_another_address_does_not_matter(wrap: Wrap, port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))
        other.listen()
        wrapped = wrap(UNUSED_URL, "--port", str(port), "--address", "127.0.0.1")
        wrapped.wait_for_output("up")
        wrapped.signal(signal.SIGTERM)
        wrapped.code()


def test_the_advice_names_the_address_on_which_the_program_listens(wrap: Wrap, port: int) -> None:
    program = _python(SERVER.replace('"127.0.0.1"', '"127.0.0.5"'))
    wrapped = wrap(UNUSED_URL, "--port", str(port), "--ready-timeout", "2s", program=program)
    assert wrapped.code() == 124
    assert "on that port of 127.0.0.5: set --address to where it listens" in wrapped.output


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--service", "Orders"), 78, "--service: must be 1 to 63 of a-z"),
        (("--check", "ftp:/"), 78, "--check: must start with http"),
        (("--port", "70000"), 78, "--port: must be from 0 to 65535"),
        (("--url", "nowhere"), 78, "--url: must be an address"),
        (("--ttl", "1ms"), 78, "--ttl: must be from 1 to"),
        (("--token-file", "/nonexistent"), 78, "--token-file: /nonexistent can't be read: No such file or directory"),
        (("--authority-file", "/dev/null"), 78, "--authority-file: /dev/null: must be certificates in PEM"),
    ],
)
def test_invalid_settings_are_reported_before_the_program_starts(
    wrap: Wrap, args: tuple[str, ...], code: int, words: str
) -> None:
    wrapped = wrap(UNUSED_URL, *args, program=("sh", "-c", "sleep 5; echo ran"))
    assert wrapped.code() == code
    assert words in wrapped.output
    assert "ran" not in wrapped.output
