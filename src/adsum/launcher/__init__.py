"""Starts programs that the kernel kills when this process ends, however it ends.

This process may have threads, such as those of gRPC, so it must not run code between fork and exec. Instead it starts
`script.py` in another Python process, which sets the kernel's parent-death signal and then becomes the program. The
program has its own process group: it receives a signal of the terminal only if this process forwards it.
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
    """Starts a program, and returns once it runs. `options` are those of `Popen`. Raises `OSError` if it can't be run.

    The kernel kills the program when the thread that called this ends.
    """
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as errors, os.fdopen(write_end, "w") as passed:
        process = subprocess.Popen(  # noqa: S603 - starting a program is the purpose
            command(argv, error_pipe=write_end), pass_fds=(write_end,), **options
        )
        passed.close()
        number = int(errors.read() or 0)
    if number:
        process.wait()
        raise OSError(number, os.strerror(number), str(argv[0]))
    return process


def command(argv: Sequence[str | Path], *, error_pipe: int = NO_PIPE, raise_file_limit: bool = False) -> list[str]:
    """Returns the command that launches a program, for a caller that can't wait as `start` does.

    `error_pipe`: the write end of a pipe. It receives the number of the system's error if the program can't be run, and
    is closed once the program runs. Without it the error is written to standard error. `raise_file_limit`: the program
    may open as many files as the system allows.
    """
    # -I and -S: without the environment and site-packages Python starts within milliseconds.
    options = [str(os.getpid()), str(error_pipe), str(int(raise_file_limit))]
    return [sys.executable, "-I", "-S", script.__file__, *options, *map(str, argv)]
