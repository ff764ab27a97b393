"""Becomes the program in its arguments, after telling the kernel to kill it when its parent ends, however it ends.

Arguments: the parent's process id; the file descriptor of a pipe for an error number, or -1; 1 to raise the limit of
open files; then the program and its arguments. It imports little, so that the program starts soon.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress

NOT_STARTED = 126
"""The exit code if the program can't be run."""
_PR_SET_PDEATHSIG = 1


def launch(parent: int, error_pipe: int, argv: list[str], *, raise_file_limit: bool) -> None:
    """Replaces this process by the program. Never returns."""
    if error_pipe >= 0:
        os.set_inheritable(error_pipe, False)
    if raise_file_limit:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # The parent ended before the signal was set.
            sys.exit("its parent has ended")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the program would inherit that.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - running the program is the purpose
    except OSError as error:
        if error_pipe >= 0:
            os.write(error_pipe, str(error.errno).encode())
        else:
            sys.stderr.write(f"{argv[0]} can't be run: {error.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    launch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:], raise_file_limit=sys.argv[3] == "1")
