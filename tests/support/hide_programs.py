"""Runs a command with all external programs of the tests hidden: `python -m tests.support.hide_programs COMMAND …`.

Tests and Adsum also search fixed folders, so an empty PATH does not hide everything. The command runs in a mount
namespace in which an empty file covers each program, and an empty folder its packages. This works on Linux, as root or
where users may create namespaces.
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
"""The exit code if this system permits no mount namespace. The command was not run then."""
NAMESPACES: Final = (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount"))
"""The commands that create a mount namespace: as root, and as any user in a user namespace."""
SCRIPT: Final = """
file=$1 folder=$2; shift 2
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then cover=$folder; else cover=$file; fi
  mount --bind "$cover" "$1" || { echo "programs can't be hidden: nothing can be mounted over $1" >&2; exit 77; }
  shift
done
shift
exec "$@"
"""


def paths_to_hide() -> list[str]:
    """Returns the files and folders to cover."""
    files = {str(file.resolve()) for program in PROGRAMS.values() for file in program.files()}
    folders = {folder for program in PROGRAMS.values() for folder in program.packages if Path(folder).is_dir()}
    return sorted(files | folders)


def namespace_command() -> Sequence[str]:
    """Returns the command that creates a mount namespace here; empty if that is not permitted."""
    if shutil.which("unshare") is None:
        return ()
    for command in NAMESPACES:
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return ()


def main(command: Sequence[str]) -> int:
    """Runs the command. Returns its exit code."""
    prefix = namespace_command()
    if not prefix:
        sys.stderr.write("programs can't be hidden: this system permits no mount namespace (unshare --mount)\n")
        return NOT_PERMITTED
    with tempfile.TemporaryDirectory() as folder:
        file, empty = Path(folder) / "file", Path(folder) / "folder"
        file.touch(mode=0o444)
        empty.mkdir()
        covered = paths_to_hide()
        return subprocess.run(
            [*prefix, "sh", "-c", SCRIPT, "hide_programs", file, empty, *covered, "--", *command],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
