"""Following all keys under a prefix, over connections that break and members that hang or lose their leader.

A quiet watch proves once a second that it is alive: etcd is asked for its progress, and a member that does not answer
within `SILENCE_TIMEOUT` or `SHORT_SILENCE_TIMEOUT` seconds is left. The next connection starts at the last known revision and drops
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
from adsum.etcd.client import ALL_KEYS_START, END_OF_STREAM, EtcdClient, is_token_error, translate_error
from adsum.etcd.errors import EtcdError, EtcdRefused, EtcdUnreachable
from adsum.etcd.messages import MESSAGE
from adsum.etcd.values import Header, KeyValue, prefix_end
from adsum.ports import Clock

PROGRESS_INTERVAL: Final = 1.0
"""Seconds between two questions how far etcd is."""
SILENCE_TIMEOUT: Final = 3.0
"""Seconds without a word after which a member counts as hanging."""
SHORT_SILENCE_TIMEOUT: Final = 1.5
"""The same where there is another member to ask: changes are heard that much later."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Bounds of the pause before connecting again, in seconds."""
MAX_FRAGMENTS: Final = 10_000
"""Pieces of one revision that are put together; more break the connection."""

_DELETED: Final = 1
"""`KeyEvent.EventType.DELETE`"""
_Request: Final = MESSAGE["WatchRequest"]


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """A key was set to `now`, or, if that is None, is gone."""

    key: bytes
    key_value: KeyValue | None


@dataclass(frozen=True, slots=True)
class RevisionEvents:
    """All that happened under the prefix at one revision, in order."""

    revision: int
    events: tuple[KeyEvent, ...]


@dataclass(frozen=True, slots=True)
class WatchProgress:
    """Nothing else happened up to `header`; so said a member that had a leader then.

    It comes in no order with the changes: before etcd 3.4.25 and 3.5.8 it overtakes some of earlier revisions, which
    are told next. So it moves no position.
    """

    header: Header


@dataclass(frozen=True, slots=True)
class WatchInterrupted:
    """The connection is lost, and another is being made."""

    reason: str


@dataclass(frozen=True, slots=True)
class ResyncRequired:
    """What happened meanwhile is not kept any more, or etcd went back: load everything anew. The watch is over."""

    reason: str


EtcdWatchEvent = RevisionEvents | WatchProgress | WatchInterrupted | ResyncRequired


async def watch(
    etcd: EtcdClient, prefix: bytes, start_revision: int, clock: Clock, rng: Random
) -> AsyncGenerator[EtcdWatchEvent, None]:
    """Follow every key that begins with `prefix`, from the changes of revision `since` on, for ever or until `ResyncRequired`."""
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    while True:
        host = etcd.host
        try:
            async with aclosing(_connection(etcd, prefix, start_revision)) as told:
                async for each in told:
                    backoff.reset()
                    yield each
                    if isinstance(each, ResyncRequired):
                        return
                    if isinstance(each, RevisionEvents):
                        start_revision = each.revision + 1
            why = "etcd ended the watch"
        except EtcdError as error:
            why = str(error)
        etcd.demote(host)
        yield WatchInterrupted(f"{host}: {why}")
        await clock.sleep(backoff.next(rng))


async def _connection(etcd: EtcdClient, prefix: bytes, since: int) -> AsyncGenerator[EtcdWatchEvent, None]:
    """One connection's part. Raises `EtcdError`."""
    _, call = await etcd.stream("Watch/Watch", "WatchResponse")
    known = since - 1
    asking: asyncio.Task[None] | None = None
    try:
        start = max(1, known)  # 0 would be now.
        wanted = {
            "key": prefix or ALL_KEYS_START,
            "range_end": prefix_end(prefix),
            "start_revision": start,
            "fragment": True,
        }
        await call.write(_Request(create_request=wanted))
        asking = asyncio.create_task(_ask(call), name="adsum-etcd-progress")
        async with aclosing(_whole(call, SILENCE_TIMEOUT if etcd.has_one_member else SHORT_SILENCE_TIMEOUT)) as answers:
            async for answer in answers:
                _mind(etcd, answer)
                if answer.compact_revision:
                    yield ResyncRequired(f"revisions up to {answer.compact_revision} are compacted")
                    return
                header = translation.header(answer.header)
                if answer.created:  # It comes before what happened meanwhile.
                    if header.revision < known and (newest := await _newest(etcd, prefix)) < known:
                        yield ResyncRequired(f"etcd is at revision {newest}, below {known}: it was wiped or restored")
                        return
                    continue
                if header.revision < known:
                    raise EtcdUnreachable(
                        f"the member that is watched is at revision {header.revision}, behind {known}"
                    )
                for seen in _by_revision(answer.events, since):
                    yield seen
                yield WatchProgress(header)
    except grpc.RpcError as error:
        if is_token_error(error.code(), error.details()):
            etcd.forget_token()
        raise translate_error(error) from None
    except asyncio.InvalidStateError as error:  # The call ended while we wrote.
        raise EtcdUnreachable(str(error)) from None
    finally:
        if asking is not None:
            asking.cancel()
        call.cancel()


async def _newest(etcd: EtcdClient, prefix: bytes) -> int:
    """The revision of etcd by a linearizable read, of a key that whoever may watch the prefix may read. Raises
    `EtcdError`.
    """
    return (await etcd.range(prefix or ALL_KEYS_START)).header.revision


def _mind(etcd: EtcdClient, answer: Any) -> None:
    """A watch that is refused is told so inside a stream that goes on."""
    if not answer.canceled or answer.compact_revision:
        return
    reason = answer.cancel_reason
    if is_token_error(None, reason) or "permission denied" in reason:  # The latter is said of an old token, too.
        etcd.forget_token()
    if not reason or "leader" in reason:
        raise EtcdUnreachable(reason or "etcd cancelled the watch")
    raise EtcdRefused(f"etcd refuses the watch: {reason}")


async def _whole(call: Any, silence: float) -> AsyncGenerator[Any, None]:
    """Every answer, put together from its fragments. Raises `Unreachable` after `silence` seconds without a word."""
    joined: Any = None
    pieces = 0
    while True:
        try:
            async with asyncio.timeout(silence):
                answer = await call.read()
        except TimeoutError:
            raise EtcdUnreachable(f"not a word for {silence:g} s") from None
        if answer is END_OF_STREAM:
            code, words = await call.code(), await call.details()
            raise EtcdUnreachable(words or f"the stream ended: {code}")
        if joined is None:
            joined, pieces = answer, 0
        else:
            joined.events.extend(answer.events)
            pieces += 1
            if pieces > MAX_FRAGMENTS:
                raise EtcdUnreachable(f"more than {MAX_FRAGMENTS} pieces of one answer")
        if not answer.fragment:
            yield joined
            joined = None


async def _ask(call: Any) -> None:
    """Ask how far etcd is, again and again; who reads minds what becomes of the call."""
    with suppress(grpc.RpcError, asyncio.InvalidStateError):
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            await call.write(_Request(progress_request={}))


def _by_revision(events: Any, since: int) -> list[RevisionEvents]:
    """The events of each revision from `since` on."""
    found: dict[int, list[KeyEvent]] = {}
    for each in events:
        if each.kv.mod_revision < since:
            continue
        now = None if each.type == _DELETED else translation.key_value(each.kv)
        found.setdefault(each.kv.mod_revision, []).append(KeyEvent(each.kv.key, now))
    return [RevisionEvents(revision, tuple(found[revision])) for revision in sorted(found)]
