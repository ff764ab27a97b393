"""Runs a command where no peer of the tests can be found: `python -m tests.support.hide_programs COMMAND …`.

Tests and Adsum search fixed folders besides PATH, so an empty PATH hides too little. The command gets a mount namespace
in which an empty file lies over each program, and an empty folder over its packages. Linux only, as root or where users
may have namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.programs import PROGRAMS

NOT_PERMITTED: Final = 77
"""The exit code where this system has no mount namespaces for us; nothing was run."""
NAMESPACES: Final = (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount"))
"""As root, and as anyone in a user namespace."""
SCRIPT: Final = """
file=$1 folder=$2; shift 2
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then cover=$folder; else cover=$file; fi
  mount --bind "$cover" "$1" || { echo "peers can't be hidden: nothing may be mounted over $1" >&2; exit 77; }
  shift
done
shift
exec "$@"
"""


def paths_to_hide() -> list[str]:
    """Every file and folder that has to be covered."""
    files = {str(file.resolve()) for peer in PROGRAMS.values() for file in peer.files()}
    folders = {folder for peer in PROGRAMS.values() for folder in peer.packages if Path(folder).is_dir()}
    return sorted(files | folders)


def namespace_command() -> Sequence[str]:
    """The command that makes a mount namespace here; empty if none may be made."""
    if shutil.which("unshare") is None:
        return ()
    for command in NAMESPACES:
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return ()


def main(command: Sequence[str]) -> int:
    """Run it and return its exit code."""
    made = namespace_command()
    if not made:
        sys.stderr.write("peers can't be hidden: this system permits no mount namespace (unshare --mount)\n")
        return NOT_PERMITTED
    with tempfile.TemporaryDirectory() as folder:
        file, empty = Path(folder) / "file", Path(folder) / "folder"
        file.touch(mode=0o444)
        empty.mkdir()
        covered = paths_to_hide()
        return subprocess.run(
            [*made, "sh", "-c", SCRIPT, "hide_programs", file, empty, *covered, "--", *command],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
