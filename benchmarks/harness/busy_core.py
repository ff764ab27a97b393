"""Keeps one core of the machine busy, as another program on the same machine would."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from benchmarks.harness.processes import MeasuredProcess
from benchmarks.harness.programs import ProgramMissing

_PROGRAM: Final = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


class BusyCore(MeasuredProcess):
    """A process that computes without a pause on the last core. Nothing else is bound to a core.

    Raises `ProgramMissing` on a machine with one core: nothing would be left for what is measured.
    """

    def __init__(self, folder: Path) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise ProgramMissing("this machine has one core, and the other one would be kept busy")
        super().__init__("busy", [sys.executable, "-c", _PROGRAM, str(cores[-1])], folder)
        self.wait_until(lambda: os.sched_getaffinity(self.pid) == {cores[-1]})
