"""Random histories of every store, compared with a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from adsum import stores
from adsum.core.catalog.changes import Change, RecordedChange
from adsum.core.errors import StoreConflict
from adsum.core.model import Key, Listing
from adsum.ports import Store
from tests.stores.support import (
    STORE_URLS,
    StoreLocation,
    StreamFollower,
    current_listings,
    current_snapshot,
    open_follower,
)
from tests.support import strategies

batches = st.lists(strategies.simple_changes, min_size=1, max_size=4)


class Histories(RuleBasedStateMachine):
    """A store and its expected contents, with one permanent follower and new ones now and then."""

    url: str
    """The URL of the store. `{}` stands for a text that is unique to each history."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = TemporaryDirectory()
        self._location = StoreLocation(self.url.format(self._folder.name))
        self._listings: dict[Key, Listing] = {}
        self._history: list[RecordedChange] = []
        self._epochs: set[str] = set()
        self._runner.run(self._open())
        self._revision = self._location.zero

    async def _open(self) -> None:
        self._opened = AsyncExitStack()
        self._store: Store = await self._opened.enter_async_context(self._location.open())
        self._follower: StreamFollower = await self._opened.enter_async_context(open_follower(self._store))

    def teardown(self) -> None:
        self._runner.run(self._opened.aclose())
        self._runner.close()
        self._folder.cleanup()

    def _expect(self, changes: Sequence[Change]) -> None:
        self._revision += 1
        for change in changes:
            self._listings.pop(change.key, None)
            if change.listing is not None:
                self._listings[change.key] = change.listing
            status = change.listing.status.value if change.listing is not None else ""
            self._history.append(RecordedChange(self._revision, change.key, status, change.provenance))

    @rule(changes=batches)
    def commit(self, changes: list[Change]) -> None:
        assert self._runner.run(self._store.commit(changes, self._revision)) == self._revision + 1
        self._expect(changes)

    @rule(changes=batches, away=st.sampled_from([-2, -1, 1, 5]))
    def commit_on_another_base_revision(self, changes: list[Change], away: int) -> None:
        with pytest.raises(StoreConflict):
            self._runner.run(self._store.commit(changes, self._revision + away))

    @rule(commits=st.lists(st.tuples(batches, st.booleans()), max_size=5))
    def commit_together(self, commits: list[tuple[list[Change], bool]]) -> None:
        """The second value of each pair: whether the commit has the right base revision."""

        async def together(bases: list[int]) -> list[int | BaseException]:
            return await asyncio.gather(
                *(
                    self._store.commit(changes, base_revision)
                    for (changes, _), base_revision in zip(commits, bases, strict=True)
                ),
                return_exceptions=True,
            )

        bases, revision = [], self._revision
        for _, fresh in commits:
            bases.append(revision if fresh else revision + 1)
            revision += fresh
        results = self._runner.run(together(bases))
        for (changes, fresh), result in zip(commits, results, strict=True):
            if fresh:
                self._expect(changes)
                assert result == self._revision
            else:
                assert isinstance(result, StoreConflict)

    @rule()
    def restart(self) -> None:
        self._runner.run(self._opened.aclose())
        self._runner.run(self._open())

    @rule()
    def follow(self) -> None:
        snapshot = self._runner.run(self._follower.reach(self._revision))
        assert current_listings(snapshot) == self._listings
        assert (snapshot.revision, snapshot.instance_count) == (self._revision, len(self._listings))
        assert self._follower.full_states == 1

    @rule(service=st.sampled_from([None, "s1", "s2"]), id=st.sampled_from([None, "i1"]), limit=st.integers(0, 20))
    def read_history(self, service: str | None, id: str | None, limit: int) -> None:
        expected = [
            recorded
            for recorded in reversed(self._history)
            if service in (None, recorded.key.service) and id in (None, recorded.key.id)
        ]
        assert self._runner.run(self._store.history(service, id, limit)) == expected[:limit]

    @invariant()
    def a_new_follower_gets_all_commits(self) -> None:
        snapshot = self._runner.run(current_snapshot(self._store))
        assert (snapshot.revision, current_listings(snapshot)) == (self._revision, self._listings)
        assert set(snapshot.services) == {recorded.key.service for recorded in self._history}
        self._epochs.add(snapshot.epoch)
        assert len(self._epochs) == 1


@pytest.mark.parametrize("scheme", stores.STORES)
@pytest.mark.long
def test_a_store_has_the_same_contents_as_a_dictionary(scheme: str, request: pytest.FixtureRequest) -> None:
    url = f"{request.getfixturevalue('etcd').url}?prefix={{}}" if scheme == "etcd" else STORE_URLS[scheme](Path("{}"))
    machine = type("Histories", (Histories,), {"url": url})
    examples = 8 if scheme == "etcd" else 15  # Its steps take longer, since they go over the network.
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=20))
