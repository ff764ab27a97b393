"""Checks: put on the schedule when an instance is listed, probed when their turn comes, proposed when they turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum.core.catalog import observations
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import REGISTRY_ACTOR, Caller
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
"""How many probes run at once; past it the next ones wait for one to end, and the lag says so."""
MIN_CHECK_ROUND_WAIT: Final = 0.02
"""The shortest wait between two rounds, in seconds."""
MAX_CHECK_ROUND_WAIT: Final = 0.1
"""The longest: a check that was just listed may be due before all others."""
LAG_REPORT_INTERVAL: Final = 1.0
"""How often the lag is told, in seconds."""
LAG_WARNING_THRESHOLD: Final = 1.0
"""From how many seconds of delay on the checks count as falling behind, which is warned of."""
WARNING_INTERVAL: Final = 30.0
"""How often a warning is repeated while it stays true, in seconds."""

_log = logging.getLogger("adsum.keeper")


@dataclass(slots=True)
class _Case:
    """One check of one instance, of the process that was listed when it was opened."""

    instance: Instance
    process: ProcessIdentity
    turn: ScheduledCheck
    standing: CheckHealth
    outcome: Outcome | None = None
    probing: asyncio.Task[None] | None = None


class CheckKeeper:
    """Runs the checks of everything listed."""

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
        """How many probes run at once; see `MAX_CONCURRENT_PROBES`."""
        self._schedule = ProbeSchedule(rng)
        self._cases: dict[Key, dict[str, _Case]] = {}
        self._probing: set[asyncio.Task[None]] = set()
        self._tell_lag_at = self._warn_at = self._warn_short_at = clock.now()
        self._behind = False

    def __len__(self) -> int:
        return len(self._schedule)

    def update(self, changed: ChangedInstance) -> None:
        """An instance changed; what it wants checked may have."""
        key, listing = changed.key, changed.listing
        checks = listing.registration.checks if listing is not None else ()
        wanted = {check.name for check in checks}
        for name in [name for name in self._cases.get(key, ()) if name not in wanted]:
            self._close(key, name)
        if listing is not None:
            for check in checks:
                self._follow(listing, check)

    def last_outcomes(self, key: Key) -> Mapping[str, Outcome]:
        """The last outcome of each check of the instance, by the check's name."""
        cases = self._cases.get(key, {})
        return {name: case.outcome for name, case in cases.items() if case.outcome is not None}

    async def round(self) -> None:
        """Start what is due as far as there is room, tell the lag, and wait for the next turn."""
        now = self._clock.now()
        for turn in self._schedule.start_due(now, self.max_probes - len(self._probing)):
            self._start(turn)
        if now >= self._tell_lag_at:
            self._tell_lag_at = now + LAG_REPORT_INTERVAL
            self._tell_lag(ProbeLag(*self._schedule.lag(now)), now)
        due = self._schedule.next_deadline()
        await self._clock.sleep(
            MAX_CHECK_ROUND_WAIT if due is None else min(MAX_CHECK_ROUND_WAIT, max(MIN_CHECK_ROUND_WAIT, due - now))
        )

    async def stop(self) -> None:
        """Give up the probes that run."""
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)

    def _follow(self, listing: Listing, check: Check) -> None:
        key, status = listing.key, listing.checks[check.name]
        case = self._cases.get(key, {}).get(check.name)
        if case is None or self._speaks_of_another(case, listing, check, status):
            self._open(listing, check, status)
        else:
            case.instance = listing.instance

    def _speaks_of_another(self, case: _Case, listing: Listing, check: Check, status: Status) -> bool:
        """Whether what was found out is no longer about what is listed. The catalog is right, unless we are ahead."""
        if case.turn.check != check or case.process != listing.registration.identity:
            return True
        return case.standing.status is not status and not self._proposals.has(_subject(listing.key, check.name))

    def _open(self, listing: Listing, check: Check, status: Status) -> None:
        key = listing.key
        self._cancel(self._cases.get(key, {}).get(check.name))
        turn = self._schedule.add(key, check, self._clock.now(), soon=status is Status.STARTING)
        process = listing.registration.identity
        self._cases.setdefault(key, {})[check.name] = _Case(listing.instance, process, turn, CheckHealth(check, status))

    def _close(self, key: Key, name: str) -> None:
        self._schedule.remove(key, name)
        self._cancel(self._cases[key].pop(name))
        if not self._cases[key]:
            del self._cases[key]

    def _cancel(self, case: _Case | None) -> None:
        if case is not None and case.probing is not None:
            case.probing.cancel()

    def _start(self, turn: ScheduledCheck) -> None:
        case = self._cases[turn.key][turn.check.name]
        case.probing = asyncio.create_task(self._examine(case), name=f"adsum-probe-{turn.key}")
        self._probing.add(case.probing)
        case.probing.add_done_callback(self._probing.discard)

    async def _examine(self, case: _Case) -> None:
        outcome = None
        try:
            outcome = await self._probe.probe(case.instance, case.turn.check)
        except ProbeUnavailable as shortage:
            self._fall_short(shortage)
        except Exception:
            # Our own mistake says nothing about the instance.
            _log.exception("the probe of %s failed", case.turn.key)
        finally:
            case.probing = None
            still_wanted = self._schedule.finish(case.turn, self._clock.now())
        if outcome is not None and still_wanted:
            self._learn(case, outcome)

    def _learn(self, case: _Case, outcome: Outcome) -> None:
        check = case.turn.check
        case.outcome = outcome
        self._observer.probed(case.turn.key, check, outcome)
        before = case.standing.status
        after = case.standing.observe(outcome.result)
        if after is not before:
            self._propose(case, after, outcome.note)

    def _propose(self, case: _Case, status: Status, note: str) -> None:
        key, name = case.turn.key, case.turn.check.name
        checked = observations.record_check(
            key, name, status, note, Caller(REGISTRY_ACTOR, self._clock.wall()), case.process
        )

        def decide(basis: CatalogView) -> list[Change]:
            """Whoever keeps the instance by then may know better."""
            return checked(basis) if self._cases.get(key, {}).get(name) is case else []

        self._proposals.add(_subject(key, name), decide)

    def _fall_short(self, shortage: ProbeUnavailable) -> None:
        """No outcome: the instance stands as it stood. Said now and then, since every probe may meet it."""
        now = self._clock.now()
        if now >= self._warn_short_at:
            self._warn_short_at = now + WARNING_INTERVAL
            _log.warning("checks are not run, and nothing changes its status: %s", shortage)

    def _tell_lag(self, lag: ProbeLag, now: float) -> None:
        self._observer.lagged(lag)
        behind = lag.seconds >= LAG_WARNING_THRESHOLD
        if behind and (now >= self._warn_at or not self._behind):
            self._warn_at = now + WARNING_INTERVAL
            _log.warning(
                "checks are falling behind: started up to %.1f s late, %d overdue, %d of at most %d probes running",
                lag.seconds,
                lag.overdue,
                len(self._probing),
                self.max_probes,
            )
        elif self._behind and not behind:
            _log.info("checks are on time again")
        self._behind = behind


def _subject(key: Key, check: str) -> tuple[Key, str, str]:
    return key, "check", check
