"""Fixtures and options for all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.programs import NEEDED, PROGRAMS, NeededPrograms, need

if TYPE_CHECKING:
    from tests.support.etcd_process import EtcdProcess
    from tests.support.fake_etcd import FakeEtcd
    from tests.support.registry_daemon import RunningDaemon

# Tests start programs while gRPC channels are in use. gRPC's fork handlers sometimes abort a program at its start.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Tests start hundreds of programs. Without cached bytecode each of them takes a second to compile Adsum.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background may ignore these signals. The programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _signal in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.SIG_DFL)

# No deadline: an example may take long on a busy machine.
settings.register_profile("adsum", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("adsum")


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    """A new registry that runs in a thread of its own, at `daemon.url`. It works for async and blocking clients."""
    # Imported here because most tests need no daemon.
    from adsum.config.serve import ServeConfig
    from tests.support.registry_daemon import RunningDaemon

    running = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="test"))
    yield running
    running.stop()


@pytest.fixture(params=["fake", "3.4", "3.5", "3.6"])
def each_etcd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdProcess | FakeEtcd]:
    """A new etcd for this test: a fake one, and one of each supported minor version."""
    from tests.support import etcd_process, fake_etcd

    if request.param == "fake":
        with fake_etcd.FakeEtcd() as fake:
            yield fake
    else:
        with etcd_process.EtcdProcess(tmp_path, program=etcd_process.binary_of_version(request.param)) as etcd:
            yield etcd


WORKERS_PER_CORE = 2

UNSPLIT_FILES = frozenset({"tests/scenarios/grpc/test_go_naming.py"})
"""Files whose tests share something that is costly to make. One worker runs all tests of such a file."""


class SplitScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Distributes single tests to workers, except the tests of the files in `UNSPLIT_FILES`, which stay together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in UNSPLIT_FILES else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers for each core, since tests of real processes mostly wait."""
    from adsum.envoy.plan import available_processors

    return WORKERS_PER_CORE * available_processors()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SplitScheduling:
    return SplitScheduling(config, log)


CACHE_KEY = "adsum/needs"
"""The key in pytest's cache of the ids of the tests that needed an external program."""
_tests_with_programs: set[str] = set()
"""The tests of this run that needed an external program."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-programs",
        action="store_true",
        help="run only the tests that needed an external program in the last complete run; "
        "fail at once if any such program can be found",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: the test takes long even on an idle machine, so it starts first")
    config.addinivalue_line("markers", "needs(*names): skip the test without these programs of tests.support.programs")
    if config.getoption("--without-programs"):
        found = [program.description() for program in PROGRAMS.values() if program.find()]
        if found:
            raise pytest.UsageError(
                f"--without-programs: hide these first (python -m tests.support.hide_programs): {found}"
            )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.stash[NeededPrograms.NODE_ID] = item.nodeid
    if config.getoption("--without-programs"):
        wanted = set(cache.get(CACHE_KEY, ()) if (cache := getattr(config, "cache", None)) else ())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
        items[:] = [item for item in items if item.nodeid in wanted]
    # Long tests start first, so that none is left to run alone at the end.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    NEEDED.item = item
    try:
        return (yield)
    finally:
        NEEDED.item = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            need(name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _tests_with_programs.update(str(test) for name, test in report.user_properties if name == NeededPrograms.PROPERTY)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config, cache = session.config, getattr(session.config, "cache", None)  # None under -p no:cacheprovider
    if (
        _tests_with_programs
        and cache
        and not hasattr(config, "workerinput")
        and not config.getoption("--without-programs")
    ):
        cache.set(CACHE_KEY, sorted(_tests_with_programs.union(cache.get(CACHE_KEY, ()))))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _tests_with_programs:
        found = [program.description() for program in PROGRAMS.values() if program.find()]
        missing = [program.missing_reason() for program in PROGRAMS.values() if not program.find()]
        terminalreporter.section("external programs")
        for heading, programs in (("found", found), ("missing", missing)):
            terminalreporter.line(f"{heading}: {'; '.join(programs) or 'none'}")
