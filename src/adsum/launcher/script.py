"""Becomes the program named by its arguments, after asking the kernel to kill it when its parent ends, however.

Arguments: the parent's process id; the end of a pipe for the number of an error, or -1; 1 if it may open as many files
as the system grants; then the program and its arguments. It imports little, so that the program starts soon.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress

NOT_STARTED = 126
"""Exit code if it could not become the program."""
_PR_SET_PDEATHSIG = 1


def launch(parent: int, error_pipe: int, argv: list[str], *, raise_file_limit: bool) -> None:
    """Never returns."""
    if error_pipe >= 0:
        os.set_inheritable(error_pipe, False)
    if raise_file_limit:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # It was gone before the kernel knew.
            sys.exit("its parent has ended")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the program would, too.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - that is what this is for
    except OSError as error:
        if error_pipe >= 0:
            os.write(error_pipe, str(error.errno).encode())
        else:
            sys.stderr.write(f"{argv[0]} can't be run: {error.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    launch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:], raise_file_limit=sys.argv[3] == "1")
