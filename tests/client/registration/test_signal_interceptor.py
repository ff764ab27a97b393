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
def heard() -> Iterator[list[int]]:
    """The signals that the server's own handler received."""
    heard: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGUSR1, previous)


def test_the_servers_own_handler_runs_after_ours(heard: list[int]) -> None:
    resumes: list[Callable[[], None]] = []
    before = SignalInterceptor([signal.SIGUSR1], lambda resume, final: resumes.append(resume))
    assert before.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (len(resumes), heard) == (1, [])
    resumes[0]()
    assert heard == [signal.SIGUSR1]
    before.remove()


def test_a_second_signal_takes_effect_at_once_and_only_once(heard: list[int]) -> None:
    resumes: list[Callable[[], None]] = []
    before = SignalInterceptor([signal.SIGUSR1], lambda resume, final: resumes.append(resume))
    before.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
    resumes[0]()
    assert heard == [signal.SIGUSR1], "a signal that was passed on is not passed on again"
    before.remove()


def test_removing_keeps_a_handler_that_was_installed_later(heard: list[int]) -> None:
    def others(number: int, frame: object) -> None: ...

    before = SignalInterceptor([signal.SIGUSR1], lambda resume, final: None)
    before.install()
    signal.signal(signal.SIGUSR1, others)
    before.remove()
    assert signal.getsignal(signal.SIGUSR1) is others


def test_ignored_signals_stay_ignored() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert not SignalInterceptor([signal.SIGUSR1], lambda resume, final: None).install()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, previous)


def test_only_the_main_thread_can_install_an_interceptor() -> None:
    said: list[bool] = []
    before = SignalInterceptor([signal.SIGUSR1], lambda resume, final: None)
    thread = threading.Thread(target=lambda: said.append(before.install()))
    thread.start()
    thread.join()
    assert said == [False]


DYING = """
import os, signal, time
from adsum.client.registration.signal_interceptor import SignalInterceptor
def first(resume, final):
    print("last:", final, flush=True)
    resume()
SignalInterceptor([signal.SIGTERM], first).install()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_a_process_without_a_handler_dies_after_the_callback() -> None:
    done = subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("last: True\n", -signal.SIGTERM), done.stderr
