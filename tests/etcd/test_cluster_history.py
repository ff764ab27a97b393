"""The detection of another history, with answers in any order."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from adsum.etcd.cluster_history import ClusterHistory, ReadStart
from adsum.etcd.values import Header

CLUSTER = 0xC1


def header(revision: int, cluster: int = CLUSTER) -> Header:
    return Header(cluster, 1, revision, 1)


@dataclass
class PendingRead:
    """A linearizable read that has not ended yet."""

    start: ReadStart
    restored: int
    """The number of restores before the read began."""
    revision: int | None = None
    """The revision of the answer, which may arrive much later."""


class EtcdHistoryModel:
    """An etcd that is written to and restored, followed by overlapping reads and lagging watches."""

    def __init__(self) -> None:
        self.history = ClusterHistory()
        self.revision = 1
        self.restored = 0
        self.reads: list[PendingRead] = []
        self.epoch = ""

    def write(self, count: int) -> None:
        self.revision += count

    def restore(self, less: int) -> None:
        self.revision = max(1, self.revision - less)
        self.restored += 1

    def begin(self, _: int) -> None:
        self.reads.append(PendingRead(self.history.begin_read(), self.restored))

    def answer(self, which: int) -> None:
        if self.reads:
            self.reads[which % len(self.reads)].revision = self.revision

    def observe(self, lag: int) -> None:
        if self.epoch:
            self.history.observe(self.epoch, max(1, self.revision - lag))

    def end(self, which: int) -> None:
        """Ends a read with its answer."""
        if not self.reads:
            return
        read = self.reads.pop(which % len(self.reads))
        if read.revision is None:
            read.revision = self.revision
        before = self.history.epoch
        epoch = self.history.end_read(read.start, header(read.revision))
        if epoch is not None:
            self.epoch = epoch
            if read.revision < read.start.newest:
                assert epoch != before, "a restore is always detected"
        assert self.number <= self.restored, "no restore is detected that did not happen"

    @property
    def number(self) -> int:
        return int(self.history.epoch.partition("-")[2])


def steps(*names: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 9)), min_size=40, max_size=80)


@given(steps("write", "begin", "answer", "end", "observe"))
def test_no_order_of_calls_looks_like_another_history(calls: list[tuple[str, int]]) -> None:
    model = EtcdHistoryModel()
    for name, number in calls:
        getattr(model, name)(number)
    assert model.number == 0


@given(steps("write", "begin", "answer", "end", "observe", "restore"))
def test_no_more_histories_are_counted_than_there_were(calls: list[tuple[str, int]]) -> None:
    model = EtcdHistoryModel()
    for name, number in calls:
        getattr(model, name)(number)


@given(steps("write", "begin", "answer", "end", "observe"), st.integers(1, 9))
def test_a_read_of_a_restored_etcd_detects_another_history(calls: list[tuple[str, int]], less: int) -> None:
    model = EtcdHistoryModel()
    for name, number in calls:
        getattr(model, name)(number)
    newest = model.history.begin_read().newest
    model.restore(less)
    model.begin(0)
    model.end(-1)
    assert model.number == (1 if model.revision < newest else 0)


def test_answers_that_arrive_out_of_order_are_of_one_history() -> None:
    history = ClusterHistory()
    first, second = history.begin_read(), history.begin_read()
    assert history.end_read(second, header(9)) == history.end_read(first, header(5)) == "c1-0"


def test_another_cluster_is_another_history_and_the_first_one_again_a_third() -> None:
    history = ClusterHistory()
    epochs = [history.end_read(history.begin_read(), header(7, cluster)) for cluster in (1, 2, 1)]
    assert epochs == ["1-0", "2-1", "1-2"]


def test_the_answer_of_a_read_that_began_in_an_earlier_history_has_no_epoch() -> None:
    history = ClusterHistory()
    history.end_read(history.begin_read(), header(500))
    late, first = history.begin_read(), history.begin_read()
    assert history.end_read(first, header(30)) == "c1-1"
    assert history.end_read(late, header(501)) is None
    assert history.end_read(history.begin_read(), header(31)) == "c1-1"


def test_revisions_of_an_earlier_process_count_as_known() -> None:
    history = ClusterHistory()
    history.observe("c1-2", 500)
    assert history.end_read(history.begin_read(), header(30)) == "c1-3"
    history.observe("c1-2", 600)
    assert history.end_read(history.begin_read(), header(30)) == "c1-3"


def test_the_epoch_of_another_source_is_ignored() -> None:
    history = ClusterHistory()
    for epoch in ("", "e1", "consul-1", "c1-x"):
        history.observe(epoch, 500)
    assert history.end_read(history.begin_read(), header(30)) == "c1-0"
