"""A daemon that is killed at any moment: all acknowledged commits are in the file."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite import SqliteStore
from tests.stores.support import current_listings, current_snapshot
from tests.stores.writer_process import pair

ROOT = Path(__file__).parents[3]
KILLS = 10


@contextmanager
def writer(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that commits for ever. It is killed at the end of the block, if it still runs."""
    command = [sys.executable, "-m", "tests.stores.writer_process", url, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("options", [[], ["small"]], ids=["as it is", "while the journal is folded"])
async def test_a_killed_daemon_loses_no_acknowledged_commit_and_leaves_none_half_written(
    tmp_path: Path, options: list[str]
) -> None:
    url, rng = f"sqlite:///{tmp_path}/adsum.db", random.Random(7)
    found = 0
    for _ in range(KILLS):
        with writer(url, *options) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(800)):
                process.stdout.readline()
            process.kill()
            acknowledged = [int(line) for line in process.stdout if line.endswith("\n")]
        found = await _check(url, max(acknowledged, default=found))


async def _check(url: str, acknowledged: int) -> int:
    """Checks that the file holds all batches up to some revision from `acknowledged` on. Returns that revision."""
    store = SqliteStore.from_url(url)
    await store.open()
    try:
        snapshot = await current_snapshot(store)
        assert snapshot.revision >= acknowledged
        newest = range(max(1, snapshot.revision - 49), snapshot.revision + 1)
        expected = {change.key: change.listing for revision in newest for change in pair(revision)}
        assert current_listings(snapshot) == expected
        history = await store.history(None, None, 2 * len(newest))
        assert sorted(recorded.revision for recorded in history) == sorted([*newest, *newest])
    finally:
        await store.close()
    return snapshot.revision


async def test_a_second_daemon_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    store = SqliteStore.from_url(f"sqlite:///{tmp_path}/adsum.db")
    with writer(f"sqlite:///{tmp_path}/adsum.db") as process:
        with pytest.raises(StoreOpenFailed, match=f"process {process.pid}"):
            await store.open()
        process.kill()
        process.wait()
        await store.open()
        await store.close()
