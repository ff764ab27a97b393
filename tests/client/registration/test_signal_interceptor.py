from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from adsum.client.registration.signal_interceptor import SignalInterceptor


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that the server's own handler received."""
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, _frame: received.append(number))
    yield received
    signal.signal(signal.SIGUSR1, previous)


def test_the_servers_own_handler_runs_after_ours(received: list[int]) -> None:
    resumes: list[Callable[[], None]] = []
    interceptor = SignalInterceptor([signal.SIGUSR1], lambda resume, kills: resumes.append(resume))
    assert interceptor.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (len(resumes), received) == (1, [])
    resumes[0]()
    assert received == [signal.SIGUSR1]
    interceptor.remove()


def test_a_second_signal_takes_effect_at_once_and_only_once(received: list[int]) -> None:
    resumes: list[Callable[[], None]] = []
    interceptor = SignalInterceptor([signal.SIGUSR1], lambda resume, kills: resumes.append(resume))
    interceptor.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert received == [signal.SIGUSR1]
    resumes[0]()
    assert received == [signal.SIGUSR1], "a signal that was passed on is not passed on again"
    interceptor.remove()


def test_removing_keeps_a_handler_that_was_installed_later(received: list[int]) -> None:
    def later(number: int, frame: object) -> None: ...

    interceptor = SignalInterceptor([signal.SIGUSR1], lambda resume, kills: None)
    interceptor.install()
    signal.signal(signal.SIGUSR1, later)
    interceptor.remove()
    assert signal.getsignal(signal.SIGUSR1) is later


def test_ignored_signals_stay_ignored() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert not SignalInterceptor([signal.SIGUSR1], lambda resume, kills: None).install()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, previous)


def test_only_the_main_thread_can_install_an_interceptor() -> None:
    installed: list[bool] = []
    interceptor = SignalInterceptor([signal.SIGUSR1], lambda resume, kills: None)
    thread = threading.Thread(target=lambda: installed.append(interceptor.install()))
    thread.start()
    thread.join()
    assert installed == [False]


DYING = """
import os, signal, time
from adsum.client.registration.signal_interceptor import SignalInterceptor
def shut_down_first(resume, kills):
    print("kills:", kills, flush=True)
    resume()
SignalInterceptor([signal.SIGTERM], shut_down_first).install()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_a_process_without_a_handler_dies_after_the_callback() -> None:
    done = subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("kills: True\n", -signal.SIGTERM), done.stderr
