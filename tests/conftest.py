"""What tests of every room may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.etcds import Etcd
    from tests.fake_etcd import FakeEtcd
    from tests.running import RunningDaemon

# Tests start programs beside channels in use: what gRPC does at a fork now and then aborts a program before it begins.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

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
    from adsum.config import ServeConfig
    from tests.running import RunningDaemon

    running = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="test"))
    yield running
    running.stop()


@pytest.fixture(params=["fake", "3.4", "3.5", "3.6"])
def each_etcd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Etcd | FakeEtcd]:
    """An etcd for this test alone: a fake one, and one of each line that Adsum must be right on."""
    from tests import etcds, fake_etcd

    if request.param == "fake":
        with fake_etcd.FakeEtcd() as fake:
            yield fake
    else:
        with etcds.Etcd(tmp_path, program=etcds.of_line(request.param)) as etcd:
            yield etcd
