"""What tests of every room may ask for."""

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

# Tests start programs beside channels in use: what gRPC does at a fork now and then aborts a program before it begins.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Tests start hundreds of programs. Where bytecode is not kept, each of them compiles all of Adsum anew: a second each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Who starts the tests in the background may have had these ignored, which the programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _each in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_each) is signal.SIG_IGN:
        signal.signal(_each, signal.SIG_DFL)

# The machine may be busy with anything: how long an example takes says nothing.
settings.register_profile("adsum", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("adsum")


@pytest.fixture
def daemon() -> Iterator[RunningDaemon]:
    """A running registry, fresh for this test; `daemon.url` is where. Works for async and for blocking clients."""
    # Imported when asked for: most tests need no daemon.
    from adsum.config.serve import ServeConfig
    from tests.support.registry_daemon import RunningDaemon

    running = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="test"))
    yield running
    running.stop()


@pytest.fixture(params=["fake", "3.4", "3.5", "3.6"])
def each_etcd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdProcess | FakeEtcd]:
    """An etcd for this test alone: a fake one, and one of each line that Adsum must be right on."""
    from tests.support import etcd_process, fake_etcd

    if request.param == "fake":
        with fake_etcd.FakeEtcd() as fake:
            yield fake
    else:
        with etcd_process.EtcdProcess(tmp_path, program=etcd_process.binary_of_version(request.param)) as etcd:
            yield etcd


WORKERS_PER_CORE = 2

TOGETHER = frozenset({"tests/scenarios/grpc/test_go_naming.py"})
"""Files whose tests share what is costly to make: one process runs all of such a file."""


class Units(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands the tests to processes one at a time, the files of `TOGETHER` as a whole and first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers a core: the tests of real processes wait most of their time."""
    from adsum.envoy.plan import available_processors

    return WORKERS_PER_CORE * available_processors()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Units:
    return Units(config, log)


CACHE = "adsum/needs"
"""Where pytest keeps the ids of the tests that needed a peer."""
_needs: set[str] = set()
"""Those of this run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-programs",
        action="store_true",
        help="run only the tests that needed a peer in the last whole run; fail at once if any peer can be found",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: the test takes long even on an idle machine, so it starts first")
    config.addinivalue_line("markers", "needs(*names): skip the test without these peers of tests.support.programs")
    found = (
        [peer.description() for peer in PROGRAMS.values() if peer.find()]
        if config.getoption("--without-programs")
        else []
    )
    if found:
        raise pytest.UsageError(
            f"--without-programs needs peers that can't be found (see tests/support/hide_programs.py): {found}"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.stash[NeededPrograms.NODE_ID] = item.nodeid
    if config.getoption("--without-programs"):
        wanted = set(cache.get(CACHE, ()) if (cache := getattr(config, "cache", None)) else ())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
        items[:] = [item for item in items if item.nodeid in wanted]
    # A long test that starts last is what everybody waits for.
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
    _needs.update(str(test) for name, test in report.user_properties if name == NeededPrograms.PROPERTY)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config, cache = session.config, getattr(session.config, "cache", None)  # None under -p no:cacheprovider
    if _needs and cache and not hasattr(config, "workerinput") and not config.getoption("--without-programs"):
        cache.set(CACHE, sorted(_needs.union(cache.get(CACHE, ()))))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _needs:
        found = [peer.description() for peer in PROGRAMS.values() if peer.find()]
        missing = [peer.missing_reason() for peer in PROGRAMS.values() if not peer.find()]
        terminalreporter.section("peers")
        for word, which in (("found", found), ("missing", missing)):
            terminalreporter.line(f"{word}: {'; '.join(which) or 'none'}")
