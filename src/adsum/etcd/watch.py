"""Following all keys under a prefix, over connections that break and members that hang or lose their leader.

A quiet watch proves once a second that it is alive: etcd is asked for its progress, and a member that does not answer
within `SILENCE` or `SHORT_SILENCE` seconds is left. The next connection starts at the last known revision and drops
what is known: etcd from 3.4.38, 3.5.22 and 3.6.2 on reports no progress of a watch that starts at a revision of the
future.

A member may be behind the last known revision. Then a linearizable read tells whether the member lags or etcd itself
went back, because it was wiped or restored: no linearizable read is below a revision that was ever seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import grpc.aio

from adsum.core.backoff import Backoff
from adsum.etcd import translation
from adsum.etcd.client import END, EVERY_KEY, Etcd, is_of_the_token, translated
from adsum.etcd.errors import EtcdError, Refused, Unreachable
from adsum.etcd.messages import MESSAGE
from adsum.etcd.values import Header, KeyValue, end_of
from adsum.ports import Clock

ASK: Final = 1.0
"""Seconds between two questions how far etcd is."""
SILENCE: Final = 3.0
"""Seconds without a word after which a member counts as hanging."""
SHORT_SILENCE: Final = 1.5
"""The same where there is another member to ask: changes are heard that much later."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Bounds of the pause before connecting again, in seconds."""
MAX_FRAGMENTS: Final = 10_000
"""Pieces of one revision that are put together; more break the connection."""

_DELETED: Final = 1
"""`Event.EventType.DELETE`"""
_Request: Final = MESSAGE["WatchRequest"]


@dataclass(frozen=True, slots=True)
class Event:
    """A key was set to `now`, or, if that is None, is gone."""

    key: bytes
    now: KeyValue | None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that happened under the prefix at one revision, in order."""

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nothing else happened up to `header`; so said a member that had a leader then.

    It comes in no order with the changes: before etcd 3.4.25 and 3.5.8 it overtakes some of earlier revisions, which
    are told next. So it moves no position.
    """

    header: Header


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection is lost, and another is being made."""

    why: str


@dataclass(frozen=True, slots=True)
class Gone:
    """What happened meanwhile is not kept any more, or etcd went back: load everything anew. The watch is over."""

    why: str


Told = Seen | Fresh | Broken | Gone


async def watch(etcd: Etcd, prefix: bytes, since: int, clock: Clock, rng: Random) -> AsyncGenerator[Told, None]:
    """Follow every key that begins with `prefix`, from the changes of revision `since` on, for ever or until `Gone`."""
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    while True:
        host = etcd.host
        try:
            async with aclosing(_connection(etcd, prefix, since)) as told:
                async for each in told:
                    backoff.reset()
                    yield each
                    if isinstance(each, Gone):
                        return
                    if isinstance(each, Seen):
                        since = each.revision + 1
            why = "etcd ended the watch"
        except EtcdError as error:
            why = str(error)
        etcd.failed(host)
        yield Broken(f"{host}: {why}")
        await clock.sleep(backoff.next(rng))


async def _connection(etcd: Etcd, prefix: bytes, since: int) -> AsyncGenerator[Told, None]:
    """One connection's part. Raises `EtcdError`."""
    _, call = await etcd.stream("Watch/Watch", "WatchResponse")
    known = since - 1
    asking: asyncio.Task[None] | None = None
    try:
        start = max(1, known)  # 0 would be now.
        wanted = {"key": prefix or EVERY_KEY, "range_end": end_of(prefix), "start_revision": start, "fragment": True}
        await call.write(_Request(create_request=wanted))
        asking = asyncio.create_task(_ask(call), name="adsum-etcd-progress")
        async with aclosing(_whole(call, SILENCE if etcd.alone else SHORT_SILENCE)) as answers:
            async for answer in answers:
                _mind(etcd, answer)
                if answer.compact_revision:
                    yield Gone(f"revisions up to {answer.compact_revision} are compacted")
                    return
                header = translation.header(answer.header)
                if answer.created:  # It comes before what happened meanwhile.
                    if header.revision < known and (newest := await _newest(etcd, prefix)) < known:
                        yield Gone(f"etcd is at revision {newest}, below {known}: it was wiped or restored")
                        return
                    continue
                if header.revision < known:
                    raise Unreachable(f"the member that is watched is at revision {header.revision}, behind {known}")
                for seen in _by_revision(answer.events, since):
                    yield seen
                yield Fresh(header)
    except grpc.RpcError as error:
        if is_of_the_token(error.code(), error.details()):
            etcd.forget_token()
        raise translated(error) from None
    except asyncio.InvalidStateError as error:  # The call ended while we wrote.
        raise Unreachable(str(error)) from None
    finally:
        if asking is not None:
            asking.cancel()
        call.cancel()


async def _newest(etcd: Etcd, prefix: bytes) -> int:
    """The revision of etcd by a linearizable read, of a key that whoever may watch the prefix may read. Raises
    `EtcdError`.
    """
    return (await etcd.range(prefix or EVERY_KEY)).header.revision


def _mind(etcd: Etcd, answer: Any) -> None:
    """A watch that is refused is told so inside a stream that goes on."""
    if not answer.canceled or answer.compact_revision:
        return
    reason = answer.cancel_reason
    if is_of_the_token(None, reason) or "permission denied" in reason:  # The latter is said of an old token, too.
        etcd.forget_token()
    if not reason or "leader" in reason:
        raise Unreachable(reason or "etcd cancelled the watch")
    raise Refused(f"etcd refuses the watch: {reason}")


async def _whole(call: Any, silence: float) -> AsyncGenerator[Any, None]:
    """Every answer, put together from its fragments. Raises `Unreachable` after `silence` seconds without a word."""
    joined: Any = None
    pieces = 0
    while True:
        try:
            async with asyncio.timeout(silence):
                answer = await call.read()
        except TimeoutError:
            raise Unreachable(f"not a word for {silence:g} s") from None
        if answer is END:
            code, words = await call.code(), await call.details()
            raise Unreachable(words or f"the stream ended: {code}")
        if joined is None:
            joined, pieces = answer, 0
        else:
            joined.events.extend(answer.events)
            pieces += 1
            if pieces > MAX_FRAGMENTS:
                raise Unreachable(f"more than {MAX_FRAGMENTS} pieces of one answer")
        if not answer.fragment:
            yield joined
            joined = None


async def _ask(call: Any) -> None:
    """Ask how far etcd is, again and again; who reads minds what becomes of the call."""
    with suppress(grpc.RpcError, asyncio.InvalidStateError):
        while True:
            await asyncio.sleep(ASK)
            await call.write(_Request(progress_request={}))


def _by_revision(events: Any, since: int) -> list[Seen]:
    """The events of each revision from `since` on."""
    found: dict[int, list[Event]] = {}
    for each in events:
        if each.kv.mod_revision < since:
            continue
        now = None if each.type == _DELETED else translation.key_value(each.kv)
        found.setdefault(each.kv.mod_revision, []).append(Event(each.kv.key, now))
    return [Seen(revision, tuple(found[revision])) for revision in sorted(found)]
