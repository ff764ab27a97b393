"""`adsum watch`, against a running registry."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.cli.conftest import Adsum

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon


def test_watch_prints_the_current_state_and_then_each_change(
    orders: RunningDaemon, adsum: Adsum, started: Callable[..., subprocess.Popen[str]]
) -> None:
    watching = started("watch", "orders", "--json")
    assert watching.stdout is not None
    first = [json.loads(watching.stdout.readline()) for _ in range(2)]
    assert {(change["id"], change["status"], change["previous_status"]) for change in first} == {
        ("a", "passing", ""),
        ("b", "passing", ""),
    }
    adsum("drain", "orders/a", "--no-wait")
    drained = json.loads(watching.stdout.readline())
    assert (drained["previous_status"], drained["status"], drained["cause"], drained["actor"]) == (
        "passing",
        "draining",
        "drained",
        "anonymous@127.0.0.1",
    )
    adsum("deregister", "orders/a", "--reason", "bye")
    gone = json.loads(watching.stdout.readline())
    assert (gone["previous_status"], gone["status"], gone["reason"]) == ("draining", "gone", "bye")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 130
