"""A process that commits to a store until it is killed: `python -m tests.stores.writer_process URL`.

It writes each acknowledged revision on a line of its own. Each batch lists a pair of instances whose port is the
revision.
"""

from __future__ import annotations

import asyncio
import os
import sys

from adsum import stores
from adsum.core.catalog.changes import Change, FullState
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.ports import Store

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


async def _write(url: str) -> None:
    store = stores.store(url)
    await store.open()
    start = await anext(store.watch())
    assert isinstance(start, FullState)
    revision = start.revision
    os.write(1, b"open\n")
    while True:
        await asyncio.gather(*(_commit(store, revision + n) for n in range(CONCURRENT_COMMITS)))
        revision += CONCURRENT_COMMITS


if __name__ == "__main__":
    asyncio.run(_write(sys.argv[1]))
