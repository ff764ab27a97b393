"""A process that commits to a store until it is killed: `python -m tests.stores.writer_process URL [small [COMMITS]]`.

It writes each acknowledged revision on a line of its own. Each batch lists a pair of instances whose port is the
revision. `small`: the journal of a SQLite file has small bounds, so that it is folded all the time.
After so many commits, or more, it kills itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from adsum import stores
from adsum.core.catalog.changes import Change, FullState
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.ports import Store
from tests.stores.sqlite.small_bounds import use_small_bounds

CONCURRENT_COMMITS = 8
"""Commits that wait for the disk at the same time."""


def pair(revision: int) -> list[Change]:
    """Returns the changes of the batch of that revision: two instances with one of 50 names."""
    why = Provenance(Cause.REGISTERED, "writer", str(revision))
    instances = [Instance("pairs", f"{half}{revision % 50}", "127.0.0.1", revision % 60_000 + 1) for half in "ab"]
    return [Change(instance.key, Listing(Registration(instance), why), why) for instance in instances]


async def _commit(store: Store, base_revision: int) -> None:
    revision = await store.commit(pair(base_revision + 1), base_revision)
    os.write(1, b"%d\n" % revision)


async def _write(url: str, commits: int | None) -> None:
    store = stores.store(url)
    await store.open()
    start = await anext(store.watch())
    assert isinstance(start, FullState)
    revision = start.revision
    os.write(1, b"open\n")
    end = revision + commits if commits is not None else sys.maxsize
    while revision < end:
        await asyncio.gather(*(_commit(store, revision + n) for n in range(CONCURRENT_COMMITS)))
        revision += CONCURRENT_COMMITS
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _, url, *options = sys.argv
    if options:
        use_small_bounds()
    asyncio.run(_write(url, int(options[1]) if len(options) > 1 else None))
