"""Programs that the kernel kills when their parent ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from adsum import launcher


def _output(*argv: str, many_files: bool = False) -> str:
    """Returns the output of a program that the launcher starts."""
    if not many_files:
        process = launcher.start(argv, stdout=subprocess.PIPE)
    else:
        process = subprocess.Popen(launcher.command(argv, raise_file_limit=True), stdout=subprocess.PIPE)
    printed, _ = process.communicate()
    assert process.returncode == 0
    return str(printed.decode())


def test_no_fork_hooks_run_in_this_process() -> None:
    code = (
        "import os; os.register_at_fork(before=lambda: print('forked', flush=True));"
        "from adsum import launcher; launcher.start(['true']).wait()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == ""


def test_the_program_has_the_default_signal_handlers() -> None:
    ignored = ("grep", "SigIgn", "/proc/self/status")
    plain = subprocess.run(ignored, check=True, capture_output=True, text=True).stdout
    assert _output(*ignored) == plain


def test_the_program_is_the_started_process_and_leads_its_own_group() -> None:
    process = launcher.start(["sh", "-c", "echo $$ $(ps -o pgid= -p $$)"], stdout=subprocess.PIPE)
    printed, _ = process.communicate()
    assert printed.split() == [str(process.pid).encode()] * 2
    assert os.getpgid(0) != process.pid


@pytest.mark.parametrize("many", [False, True])
def test_the_program_has_the_file_limit_of_its_parent_or_the_raised_one(many: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        printed = _output("sh", "-c", "ulimit -n", many_files=many)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert printed.strip() == (str(hard) if many else "512")


@pytest.mark.parametrize(("program", "error"), [("no-such-program", FileNotFoundError), ("/", PermissionError)])
def test_a_program_that_cannot_be_run_raises_the_systems_error(program: str, error: type[OSError]) -> None:
    with pytest.raises(error) as raised:
        launcher.start([program])
    assert raised.value.filename == program
