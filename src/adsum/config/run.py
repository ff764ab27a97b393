"""The settings of `adsum run`: the table [run]."""

from __future__ import annotations

from dataclasses import dataclass

from adsum.config.limits import MAX_TIMEOUT_SETTING
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.settings import check_range, setting


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The time limits of `adsum run`, in seconds, and whether its port is shared."""

    ready_timeout: float = setting(
        "Time within which the program must pass its checks; otherwise it is stopped. 0: register it without checking",
        duration=True,
        default=60.0,
    )
    drain_timeout: float = setting(
        "Longest wait for callers to stop calling before the program is stopped; 0: don't wait",
        duration=True,
        default=DEFAULT_DRAIN_WAIT,
    )
    stop_timeout: float = setting(
        "Time within which the program must end after the signal; otherwise it is killed", duration=True, default=10.0
    )
    shared_port: bool = setting(
        "Start the program even if another one already answers on its port, because both serve it", default=False
    )

    def __post_init__(self) -> None:
        check_range("ready_timeout", self.ready_timeout, 0.0, MAX_TIMEOUT_SETTING)
        check_range("drain_timeout", self.drain_timeout, 0.0, 300.0)
        check_range("stop_timeout", self.stop_timeout, 0.0, MAX_TIMEOUT_SETTING)
