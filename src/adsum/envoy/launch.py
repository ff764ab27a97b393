"""Becomes the program named by its arguments, after asking the kernel to kill it when its parent ends, however.

Run as a script by a Python of its own, so that the parent, which may have threads, runs no code between fork and exec.
Arguments: the parent's process id, then the program and its arguments.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def launch(parent: int, argv: list[str]) -> None:
    """Never returns if the program could be started."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # Every connection is a file descriptor.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.setpgid(0, 0)  # A signal that a terminal sends to the parent reaches it only through the parent.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # It was gone before the kernel knew.
            sys.exit("its parent has ended")
    try:
        os.execv(argv[0], argv)  # noqa: S606 - that is what this is for
    except OSError as error:
        sys.exit(f"{argv[0]} can't be run: {error.strerror}")


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
