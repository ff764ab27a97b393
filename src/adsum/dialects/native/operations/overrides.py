"""Overrides, and the wait of a drain until consumers have acknowledged it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import msgspec

from adsum import wire
from adsum.consumers import ConsumerHints, build_report
from adsum.core.catalog import decisions
from adsum.core.errors import UnknownInstance
from adsum.core.model import Key, Override, Status
from adsum.core.validation import quoted
from adsum.dialects.native.asgi import ApiReply
from adsum.dialects.native.operations.recorded_decision import RecordedDecision
from adsum.dialects.native.ports import OtherNodes
from adsum.dialects.native.problems import STOPPING, WaitEnded
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.ports import Clock
from adsum.registry import Registry

MAX_LOGGED_CONSUMERS: Final = 20
"""Consumers that a log line names. Further ones are counted."""
RETRY_ADVICE: Final = "ask another node, or this one once it is back, whether consumers have acknowledged it"
REVISION_NOT_REACHED: Final = "this node has not received the change yet, so none of its consumers has acknowledged it"

_log = logging.getLogger("adsum.native")


class OverrideOperations:
    """The operations that set and clear overrides, and report the consumers that have not acknowledged a revision."""

    def __init__(self, registry: Registry, others: OtherNodes, clock: Clock, node: str) -> None:
        """`node`: the name of this node."""
        self._registry = registry
        self._others = others
        self._clock = clock
        self._node = node

    async def override(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.OverrideBody)
        deadline = self._clock.now() + body.wait
        caller = request.caller(self._clock.wall())
        override = Override(
            Status(body.status), caller.actor, body.reason, body.length, body.holder or None, at=caller.at
        )
        decision = RecordedDecision(decisions.set_override(request.key, override, body.holder, caller))
        try:
            revision = await self._registry.write(decision)
        except UnknownInstance:
            self._registry.watches.consumers.note_restart()  # Consumers may know the instance from before a restart.
            raise
        if not body.wait:
            return self._written(revision)
        changed_at = revision if decision.has_changes else self._last_change(request.key)
        left = max(0.0, deadline - self._clock.now())
        waiting = self._others.wait_for_acknowledgements(self._query_here, request.key.service, changed_at, left)
        report = await self._unless_stopping(waiting, f"{request.key} is {body.status}, but {STOPPING}; {RETRY_ADVICE}")
        _log_unacknowledged(request.key, body, report)
        return self._written(revision, report)

    async def resume(self, request: ApiRequest) -> ApiReply:
        caller = request.caller(self._clock.wall())
        decision = decisions.clear_override(request.key, request.query.get("reason", ""), caller)
        return self._written(await self._registry.write(decision))

    async def read_unacknowledged(self, request: ApiRequest) -> ApiReply:
        query = request.query
        hints = ConsumerHints()
        if request.is_forwarded_to(self._others.id):
            hints = ConsumerHints(query.get("acknowledged", ()), query.get("goodbye", ()))
        service, revision, wait = request.path["service"], query.get("revision", 0), query.get("wait", 0.0)
        waiting = self._query_here(service, revision, wait, query.get("consumer", ()), hints)
        return ApiReply(200, wire.encode(await self._unless_stopping(waiting, STOPPING)))

    async def _unless_stopping(
        self, waiting: Coroutine[Any, Any, wire.AcknowledgementReport], problem: str
    ) -> wire.AcknowledgementReport:
        """Returns the result of `waiting`.

        Raises `WaitEnded` with the problem when the node stops: from then on it receives no acknowledgements.
        """
        report = asyncio.ensure_future(waiting)
        stopping = asyncio.ensure_future(self._registry.watches.wait_until_ended())
        try:
            await asyncio.wait((report, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not report.done():
                raise WaitEnded(problem)
            return report.result()
        finally:
            report.cancel()
            stopping.cancel()
            await asyncio.gather(report, stopping, return_exceptions=True)

    async def _query_here(
        self, service: str, revision: int, wait: float, consumers: Sequence[str], hints: ConsumerHints
    ) -> wire.AcknowledgementReport:
        """Waits until the consumers of this node have acknowledged the revision, at most `wait` seconds.

        Implements `AckQuery`. `consumers`: ids of consumers of other nodes, to look for here.
        """
        deadline = self._clock.now() + wait
        if not await self._registry.wait_for_revision(revision, wait):
            # No consumer can acknowledge a revision that its node has not sent, so the report names the node.
            snapshot = self._registry.snapshot
            this_node = wire.ConsumerView(name=self._node, node=self._node, reason=REVISION_NOT_REACHED)
            return wire.AcknowledgementReport(snapshot.epoch, snapshot.revision, 1, [this_node])
        ledger = self._registry.watches.consumers
        ledger.apply_hints(service, revision, hints)
        left = max(0.0, deadline - self._clock.now())
        status = await ledger.wait_for_acknowledgements(service, revision, left)
        found = ledger.hints_for(consumers, service, revision)
        snapshot, clock = self._registry.snapshot, self._clock
        report = build_report(status, self._node, snapshot.epoch, snapshot.revision, now=clock.now(), wall=clock.wall())
        return msgspec.structs.replace(report, acknowledged=list(found.acknowledged), goodbyes=list(found.goodbyes))

    def _last_change(self, key: Key) -> int:
        """Returns the revision of the latest change of the instance, or the oldest that is remembered."""
        service = self._registry.snapshot.service(key.service)
        revisions = (change.revision for change in reversed(service.recent_changes) if change.id == key.id)
        return next(revisions, service.compact_revision)

    def _written(self, revision: int, report: wire.AcknowledgementReport | None = None) -> ApiReply:
        result = wire.WriteResult(self._registry.snapshot.epoch, revision)
        if report is not None:
            result = msgspec.structs.replace(
                result,
                unacknowledged=report.unacknowledged,
                waiting=[_without_id(view) for view in report.waiting],
                lost=[_without_id(view) for view in report.lost],
                lost_count=report.lost_count,
            )
        return ApiReply(200, wire.encode(result))


def _without_id(view: wire.ConsumerView) -> wire.ConsumerView:
    """Returns the view without the id: a client that has the id could say good-bye for the consumer."""
    return msgspec.structs.replace(view, id="")


def _log_unacknowledged(key: Key, body: wire.OverrideBody, report: wire.AcknowledgementReport) -> None:
    """Logs the consumers that have not acknowledged a drain within its wait, and the lost ones."""
    if report.unacknowledged:
        _log.warning(
            "%s is %s; after %g s, %d had not acknowledged it: %s%s",
            key,
            body.status,
            body.wait,
            report.unacknowledged,
            _names(report.waiting),
            f"; lost: {_names(report.lost)}" if report.lost else "",
        )
    elif report.lost:
        _log.info(
            "%s is %s; %d were lost, and not waited for: %s",
            key,
            body.status,
            report.lost_count,
            _names(report.lost),
        )


def _origin(view: wire.ConsumerView) -> str:
    """Returns the node that knows the consumer, and the token that the consumer proved, if it proved one."""
    return f"known to {view.node}, token {view.principal}" if view.principal else f"known to {view.node}"


def _names(views: Sequence[wire.ConsumerView]) -> str:
    named = [
        f"{quoted(view.name)} at {view.address} ({_origin(view)}): {view.reason}"
        for view in views[:MAX_LOGGED_CONSUMERS]
    ]
    more = f" and {len(views) - MAX_LOGGED_CONSUMERS} more" if len(views) > MAX_LOGGED_CONSUMERS else ""
    return ", ".join(named) + more
