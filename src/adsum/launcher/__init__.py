"""Starts programs that the kernel kills when this process ends, however.

This process may have threads, those of gRPC among them, so it runs no code of its own between fork and exec: it starts
`script.py` in a Python of its own, which asks the kernel and becomes the program. The program gets a process group of
its own: a signal that a terminal sends to this process reaches it only through this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from adsum.launcher import script

NO_PIPE: Final = -1


def start(argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Return once the program runs. `options` are those of `Popen`. Raises `OSError` if it can't be run.

    It is killed when the thread that calls this ends.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading) as errors, os.fdopen(writing, "w") as given:
        process = subprocess.Popen(  # noqa: S603 - running it is what we are for
            command(argv, error_pipe=writing), pass_fds=(writing,), **options
        )
        given.close()
        number = int(errors.read() or 0)
    if number:
        process.wait()
        raise OSError(number, os.strerror(number), str(argv[0]))
    return process


def command(argv: Sequence[str | Path], *, error_pipe: int = NO_PIPE, raise_file_limit: bool = False) -> list[str]:
    """What to start in the program's place, for a caller that can't wait as `start` does.

    `errors`: the end of a pipe that gets the number of the system's error if the program can't be run, and is closed
    once it runs; without, standard error gets a sentence. `raise_file_limit`: it may open as many files as the system grants.
    """
    # -I and -S: nothing of the environment, nothing of site-packages; it is there within milliseconds.
    options = [str(os.getpid()), str(error_pipe), str(int(raise_file_limit))]
    return [sys.executable, "-I", "-S", script.__file__, *options, *map(str, argv)]
