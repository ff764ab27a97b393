"""A watch of all keys under a prefix. It survives broken connections, and members that hang or lose their leader.

A member without changes must prove once a second that it is alive: the watch requests its progress, and leaves a member
that sends nothing for `SILENCE_TIMEOUT` or `SHORT_SILENCE_TIMEOUT` seconds. The next connection starts at the last
known revision, and drops what is known already: etcd from 3.4.38, 3.5.22 and 3.6.2 on reports no progress to a watch
that starts at a future revision.

A member may be behind the last known revision. Then a linearizable read shows whether the member lags, or whether etcd
was wiped or restored: no linearizable read returns a revision below one that was ever seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import grpc.aio
from msgspec import Struct

from adsum.core.backoff import Backoff
from adsum.etcd import translation
from adsum.etcd.client import ALL_KEYS_START, END_OF_STREAM, EtcdClient, is_token_error, translate_error
from adsum.etcd.errors import EtcdError, EtcdRefused, EtcdUnreachable
from adsum.etcd.messages import MESSAGE
from adsum.etcd.values import Header, KeyValue, prefix_end
from adsum.ports import Clock

PROGRESS_INTERVAL: Final = 1.0
"""Seconds between two requests for progress."""
SILENCE_TIMEOUT: Final = 3.0
"""Seconds without a message after which a member counts as hanging."""
SHORT_SILENCE_TIMEOUT: Final = 1.5
"""The same if there are several members. A hanging member delays changes by at most that much."""
MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE = 0.1, 2.0
"""Seconds before the watch connects again. The pause grows from the first bound to the second."""
MAX_FRAGMENTS: Final = 10_000
"""Fragments of one answer that are joined. More break the connection."""

_DELETED: Final = 1
"""`Event.EventType.DELETE`"""
_Request: Final = MESSAGE["WatchRequest"]


class KeyEvent(Struct, frozen=True):
    """A key was set to `key_value`, or deleted if that is None."""

    key: bytes
    key_value: KeyValue | None


class RevisionEvents(Struct, frozen=True):
    """The events of all keys under the prefix at one revision, in order."""

    revision: int
    events: tuple[KeyEvent, ...]


@dataclass(frozen=True, slots=True)
class WatchProgress:
    """A member that had a leader reported that nothing else happened up to `header`.

    Its order among the events is not certain: before etcd 3.4.25 and 3.5.8 it overtakes events of earlier revisions.
    So it must not move the position of the watch.
    """

    header: Header


@dataclass(frozen=True, slots=True)
class WatchInterrupted:
    """The connection is lost, and another is being made."""

    reason: str


@dataclass(frozen=True, slots=True)
class ResyncRequired:
    """The watch is over. Load everything anew: missed events are compacted, or etcd was wiped or restored."""

    reason: str


EtcdWatchEvent = RevisionEvents | WatchProgress | WatchInterrupted | ResyncRequired


async def watch(
    etcd: EtcdClient, prefix: bytes, start_revision: int, clock: Clock, rng: Random
) -> AsyncGenerator[EtcdWatchEvent, None]:
    """Yields the events of all keys that begin with `prefix`, from `start_revision` on.

    Ends only after a `ResyncRequired`.
    """
    backoff = Backoff(MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE)
    while True:
        host = etcd.host
        try:
            async with aclosing(_connection_events(etcd, prefix, start_revision)) as events:
                async for event in events:
                    backoff.reset()
                    yield event
                    if isinstance(event, ResyncRequired):
                        return
                    if isinstance(event, RevisionEvents):
                        start_revision = event.revision + 1
            reason = "etcd ended the watch"
        except EtcdError as error:
            reason = str(error)
        etcd.demote(host)
        yield WatchInterrupted(f"{host}: {reason}")
        await clock.sleep(backoff.next(rng))


async def _connection_events(
    etcd: EtcdClient, prefix: bytes, start_revision: int
) -> AsyncGenerator[EtcdWatchEvent, None]:
    """Yields the events of one connection. Raises `EtcdError`."""
    _, call = await etcd.stream("Watch/Watch", "WatchResponse")
    known = start_revision - 1
    requesting: asyncio.Task[None] | None = None
    try:
        start = max(1, known)  # 0 stands for the current revision.
        range_end = prefix_end(prefix)
        fields = {"key": prefix or ALL_KEYS_START, "range_end": range_end, "start_revision": start, "fragment": True}
        await call.write(_Request(create_request=fields))
        requesting = asyncio.create_task(_request_progress(call), name="adsum-etcd-progress")
        silence = SILENCE_TIMEOUT if etcd.has_one_member else SHORT_SILENCE_TIMEOUT
        async with aclosing(_joined_answers(call, silence)) as answers:
            async for answer in answers:
                _raise_if_refused(etcd, answer)
                if answer.compact_revision:
                    yield ResyncRequired(f"revisions up to {answer.compact_revision} are compacted")
                    return
                header = translation.header(answer.header)
                if answer.created:  # This answer comes before the missed events.
                    if header.revision < known and (newest := await _newest_revision(etcd, prefix)) < known:
                        yield ResyncRequired(f"etcd is at revision {newest}, below {known}: it was wiped or restored")
                        return
                    continue
                if header.revision < known:
                    raise EtcdUnreachable(f"the watched member is at revision {header.revision}, behind {known}")
                for revision_events in _by_revision(answer.events, start_revision):
                    yield revision_events
                yield WatchProgress(header)
    except grpc.RpcError as error:
        if is_token_error(error.code(), error.details()):
            etcd.forget_token()
        raise translate_error(error) from None
    except asyncio.InvalidStateError as error:  # The call ended during a write.
        raise EtcdUnreachable(str(error)) from None
    finally:
        if requesting is not None:
            requesting.cancel()
        call.cancel()


async def _newest_revision(etcd: EtcdClient, prefix: bytes) -> int:
    """Returns the revision of etcd by a linearizable read of a key that the watch may read. Raises `EtcdError`."""
    return (await etcd.range(prefix or ALL_KEYS_START)).header.revision


def _raise_if_refused(etcd: EtcdClient, answer: Any) -> None:
    """Raises `EtcdError` if etcd cancelled the watch. The stream itself goes on then."""
    if not answer.canceled or answer.compact_revision:
        return
    reason = answer.cancel_reason
    if is_token_error(None, reason) or "permission denied" in reason:  # An outdated token causes the latter, too.
        etcd.forget_token()
    if not reason or "leader" in reason:
        raise EtcdUnreachable(reason or "etcd cancelled the watch")
    raise EtcdRefused(f"etcd refuses the watch: {reason}")


async def _joined_answers(call: Any, silence: float) -> AsyncGenerator[Any, None]:
    """Yields the answers, each joined from its fragments.

    Raises `EtcdUnreachable` at the end of the stream, and after `silence` seconds without a message.
    """
    joined: Any = None
    fragments = 0
    while True:
        try:
            async with asyncio.timeout(silence):
                answer = await call.read()
        except TimeoutError:
            raise EtcdUnreachable(f"no message for {silence:g} s") from None
        if answer is END_OF_STREAM:
            code, details = await call.code(), await call.details()
            raise EtcdUnreachable(details or f"the stream ended: {code}")
        if joined is None:
            joined, fragments = answer, 0
        else:
            joined.events.extend(answer.events)
            fragments += 1
            if fragments > MAX_FRAGMENTS:
                raise EtcdUnreachable(f"more than {MAX_FRAGMENTS} fragments of one answer")
        if not answer.fragment:
            yield joined
            joined = None


async def _request_progress(call: Any) -> None:
    """Requests the progress of the watch periodically. The reader of the call handles its errors."""
    with suppress(grpc.RpcError, asyncio.InvalidStateError):
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            await call.write(_Request(progress_request={}))


def _by_revision(events: Any, start_revision: int) -> list[RevisionEvents]:
    """Groups the events from `start_revision` on by their revisions."""
    groups: dict[int, list[KeyEvent]] = {}
    for event in events:
        if event.kv.mod_revision < start_revision:
            continue
        key_value = None if event.type == _DELETED else translation.key_value(event.kv)
        groups.setdefault(event.kv.mod_revision, []).append(KeyEvent(event.kv.key, key_value))
    return [RevisionEvents(revision, tuple(groups[revision])) for revision in sorted(groups)]
