"""The power fails at any moment, and the disk loses any part of what was not synced: all acknowledged commits stay.

The system calls of a process are recorded, and the files are rebuilt from them as of many moments.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adsum.stores.sqlite.file import SqliteFile
from tests.stores.sqlite.unsynced_disk import SYSTEM_CALLS, SystemCall, UnsyncedDisk, read_trace
from tests.stores.writer_process import pair
from tests.support.programs import need

ROOT = Path(__file__).parents[3]
REVISIONS = 120
"""Commits of each of two processes, one after the other."""
POWER_CUTS = 80


def record(strace: Path, folder: Path, trace: Path) -> None:
    """Records the system calls of a process that commits, and kills itself after `REVISIONS` commits."""
    command = [
        *(str(strace), "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={SYSTEM_CALLS}", "-o", str(trace)),
        *(sys.executable, "-m", "tests.stores.writer_process", f"sqlite:///{folder}/new/adsum.db"),
        *("small", str(REVISIONS)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if not done.stdout.startswith("open\n"):
        assert "PTRACE" in done.stderr, done.stderr
        pytest.skip(f"strace may not record here: {done.stderr.strip()}")


def check(path: Path, acknowledged: int) -> None:
    """Checks that the file holds all batches up to some revision from `acknowledged` on, and nothing else."""
    for _ in range(2):  # Closing it has folded the journal.
        file = SqliteFile(path)
        file.open()
        try:
            state = file.full_state()
            assert state.revision >= acknowledged
            newest = range(max(1, state.revision - 49), state.revision + 1)
            expected = {change.key: change.listing for revision in newest for change in pair(revision)}
            assert {listing.key: listing for _, listing in state.listings} == expected
            history = [recorded.revision for recorded in file.history(None, None, 10_000)]
            assert history == [revision for revision in range(state.revision, 0, -1) for _ in "ab"]
        finally:
            file.close()


@pytest.mark.long
@pytest.mark.needs("strace")
def test_a_power_cut_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    strace, folder, rng = need("strace"), tmp_path / "disk", random.Random(5)
    folder.mkdir()
    calls: list[SystemCall] = []
    for number in range(2):
        record(strace, folder, tmp_path / f"trace-{number}")
        calls += read_trace(tmp_path / f"trace-{number}")
    disk, acknowledged = UnsyncedDisk(folder), 0
    cuts = set(rng.sample(range(len(calls)), POWER_CUTS)) | {len(calls) - 1}
    for number, call in enumerate(calls):
        disk.replay(call)
        if call.name == "write" and call.arguments.startswith(b"1<"):
            line = call.texts()[0].strip()
            acknowledged = int(line) if line.isdigit() else acknowledged
        if number in cuts:
            for chance in (None, rng):
                target = tmp_path / "rebuilt"
                disk.save_after_power_cut(target, chance)
                check(target / "new" / "adsum.db", acknowledged)
                shutil.rmtree(target)
    assert acknowledged >= 2 * REVISIONS - 8
    assert disk.syncs > REVISIONS / 4
