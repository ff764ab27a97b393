"""The checks of listed instances: schedules them, probes them, and proposes their new statuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog import observations
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.draft import CatalogView
from adsum.core.errors import ProbeUnavailable
from adsum.core.identity import ProcessIdentity
from adsum.core.liveness.check_health import CheckHealth
from adsum.core.liveness.probe_schedule import ProbeSchedule, ScheduledCheck
from adsum.core.model import Check, Instance, Key, Listing, Outcome, Status
from adsum.keeper.changed_instances import ChangedInstance
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock, Observer, Probe, ProbeLag

MAX_CONCURRENT_PROBES: Final = 256
"""Probes that run at the same time. Past it the next ones wait, and the lag grows."""
MIN_CHECK_ROUND_WAIT: Final = 0.02
"""Seconds between two rounds, at least."""
MAX_CHECK_ROUND_WAIT: Final = 0.1
"""Seconds between two rounds, at most: a check that was just listed may be due before all others."""
LAG_REPORT_INTERVAL: Final = 1.0
"""Seconds between two reports of the lag."""
LAG_WARNING_THRESHOLD: Final = 1.0
"""Seconds of delay from which the log warns that the checks are falling behind."""
WARNING_INTERVAL: Final = 30.0
"""Seconds between two log lines of one warning."""

_log = logging.getLogger("adsum.keeper")


@dataclass(slots=True)
class _CheckState:
    """One check of one instance, and of the process that was listed when it was scheduled."""

    instance: Instance
    process: ProcessIdentity
    scheduled: ScheduledCheck
    health: CheckHealth
    outcome: Outcome | None = None
    task: asyncio.Task[None] | None = None


class CheckKeeper:
    """Runs the checks of the listed instances."""

    def __init__(
        self,
        proposals: Proposals,
        probe: Probe,
        clock: Clock,
        observer: Observer,
        rng: Random,
        max_probes: int = MAX_CONCURRENT_PROBES,
    ) -> None:
        self._proposals = proposals
        self._probe = probe
        self._clock = clock
        self._observer = observer
        self.max_probes = max_probes
        """Probes that run at the same time; see `MAX_CONCURRENT_PROBES`."""
        self._schedule = ProbeSchedule(rng)
        self._states: dict[Key, dict[str, _CheckState]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._report_lag_at = self._warn_lag_at = self._warn_unavailable_at = clock.now()
        self._is_behind = False

    def __len__(self) -> int:
        return len(self._schedule)

    def update(self, changed: ChangedInstance) -> None:
        """Follows the change of an instance: adds, replaces and removes its checks."""
        key, listing = changed.key, changed.listing
        checks = listing.registration.checks if listing is not None else ()
        if not checks and key not in self._states:
            return
        names = {check.name for check in checks}
        for name in [name for name in self._states.get(key, ()) if name not in names]:
            self._remove(key, name)
        if listing is not None:
            for check in checks:
                self._update_check(listing, check)

    def last_outcomes(self, key: Key) -> Mapping[str, Outcome]:
        """Returns the last outcome of each check of the instance, by the name of the check."""
        states = self._states.get(key, {})
        return {name: state.outcome for name, state in states.items() if state.outcome is not None}

    async def round(self) -> None:
        """Starts the due probes, as many as may run, reports the lag, and waits until the next probe is due."""
        now = self._clock.now()
        for scheduled in self._schedule.start_due(now, self.max_probes - len(self._tasks)):
            self._start(scheduled)
        if now >= self._report_lag_at:
            self._report_lag_at = now + LAG_REPORT_INTERVAL
            self._report_lag(ProbeLag(*self._schedule.lag(now)), now)
        due = self._schedule.next_deadline()
        await self._clock.sleep(
            MAX_CHECK_ROUND_WAIT if due is None else min(MAX_CHECK_ROUND_WAIT, max(MIN_CHECK_ROUND_WAIT, due - now))
        )

    async def stop(self) -> None:
        """Cancels the running probes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _update_check(self, listing: Listing, check: Check) -> None:
        key, status = listing.key, listing.checks[check.name]
        state = self._states.get(key, {}).get(check.name)
        if state is None or self._is_outdated(state, listing, check, status):
            self._add(listing, check, status)
        else:
            state.instance = listing.instance

    def _is_outdated(self, state: _CheckState, listing: Listing, check: Check, status: Status) -> bool:
        """Returns whether the state is not of the listed check, process and status.

        The status in the catalog counts, unless a newer one is proposed and not written yet.
        """
        if state.scheduled.check != check or state.process != listing.registration.identity:
            return True
        return state.health.status is not status and not self._proposals.has(_subject(listing.key, check.name))

    def _add(self, listing: Listing, check: Check, status: Status) -> None:
        key = listing.key
        self._cancel(self._states.get(key, {}).get(check.name))
        scheduled = self._schedule.add(key, check, self._clock.now(), soon=status is Status.STARTING)
        process, health = listing.registration.identity, CheckHealth(check, status)
        self._states.setdefault(key, {})[check.name] = _CheckState(listing.instance, process, scheduled, health)

    def _remove(self, key: Key, name: str) -> None:
        self._schedule.remove(key, name)
        self._cancel(self._states[key].pop(name))
        if not self._states[key]:
            del self._states[key]

    def _cancel(self, state: _CheckState | None) -> None:
        if state is not None and state.task is not None:
            state.task.cancel()

    def _start(self, scheduled: ScheduledCheck) -> None:
        state = self._states[scheduled.key][scheduled.check.name]
        state.task = asyncio.create_task(self._run(state), name=f"adsum-probe-{scheduled.key}")
        self._tasks.add(state.task)
        state.task.add_done_callback(self._tasks.discard)

    async def _run(self, state: _CheckState) -> None:
        outcome = None
        try:
            outcome = await self._probe.probe(state.instance, state.scheduled.check)
        except ProbeUnavailable as error:
            self._warn_unavailable(error)
        except Exception:
            # A fault of the registry says nothing about the instance.
            _log.exception("the probe of %s failed", state.scheduled.key)
        finally:
            state.task = None
            is_current = self._schedule.finish(state.scheduled, self._clock.now())
        if outcome is not None and is_current:
            self._record(state, outcome)

    def _record(self, state: _CheckState, outcome: Outcome) -> None:
        state.outcome = outcome
        self._observer.probed(state.scheduled.key, state.scheduled.check, outcome)
        before = state.health.status
        after = state.health.observe(outcome.result)
        if after is not before:
            self._propose(state, after, outcome.note)

    def _propose(self, state: _CheckState, status: Status, note: str) -> None:
        key, name = state.scheduled.key, state.scheduled.check.name
        caller = Caller(REGISTRY_ACTOR, self._clock.wall())
        decision = observations.record_check(key, name, status, note, caller, state.process)

        def decide(view: CatalogView) -> list[Change]:
            # If the state was replaced, or another node keeps the instance by now, the status may be outdated.
            return decision(view) if self._states.get(key, {}).get(name) is state else []

        self._proposals.add(_subject(key, name), decide)

    def _warn_unavailable(self, error: ProbeUnavailable) -> None:
        """Logs that probes have no outcome. The log line is rate-limited, since every probe may fail so."""
        now = self._clock.now()
        if now >= self._warn_unavailable_at:
            self._warn_unavailable_at = now + WARNING_INTERVAL
            _log.warning("checks can't be run, and no status changes: %s", error)

    def _report_lag(self, lag: ProbeLag, now: float) -> None:
        self._observer.lagged(lag)
        is_behind = lag.seconds >= LAG_WARNING_THRESHOLD
        if is_behind and (now >= self._warn_lag_at or not self._is_behind):
            self._warn_lag_at = now + WARNING_INTERVAL
            _log.warning(
                "checks are falling behind: started up to %.1f s late, %d overdue, %d of at most %d probes running",
                lag.seconds,
                lag.overdue,
                len(self._tasks),
                self.max_probes,
            )
        elif self._is_behind and not is_behind:
            _log.info("checks are on time again")
        self._is_behind = is_behind


def _subject(key: Key, check: str) -> tuple[Key, str, str]:
    return key, "check", check
