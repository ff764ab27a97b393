"""The response to a watch: an endless stream of Server-Sent Events.

open, service…, synced     the full state (`full` is true), or
open, change…, synced      the changes since the position that the client resumes from; afterwards
change…, synced            the changes of a batch, in one write
synced                     a heartbeat, while nothing changes
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum.access.sessions import RIGHTS_CHANGED
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.asgi import NO_STORE, Receive, Scope, Send
from adsum.dialects.native.events.event_groups import EventGroups, WatchPosition
from adsum.dialects.native.events.heartbeat import HeartbeatTimer
from adsum.dialects.native.events.watch_events import WatchedServices, changed_services
from adsum.dialects.native.requests.disconnect_watch import DisconnectWatch
from adsum.dialects.native.requests.rights_watch import RightsWatch
from adsum.ports import ABORT_IF_SILENT, SEND_CHUNK, AbortIfSilent, SendChunk
from adsum.watches import Watch

MAX_WRITE_BYTES: Final = 64 * 1024
"""Bytes of one write. A longer group takes several. Each waits until the client has read most of those before."""

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),
)
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_RIGHTS_CHANGED: Final = {"type": "http.response.body", "body": f": {RIGHTS_CHANGED}\n\n".encode()}
_END: Final = {"type": "http.response.body", "body": b": the registry is stopping\n\n"}


class WatchStream:
    """The response to one watch."""

    __slots__ = (
        "_groups",
        "_heartbeats",
        "_on_end",
        "_position",
        "_rights",
        "_send_chunk",
        "_services",
        "_since",
        "_token",
        "_watch",
        "status",
    )

    def __init__(
        self,
        groups: EventGroups,
        heartbeats: HeartbeatTimer[WatchStream],
        watch: Watch,
        services: WatchedServices,
        rights: RightsWatch,
        since: WatchPosition | None,
        token: str,
        on_end: Callable[[str], None],
    ) -> None:
        """`services`: those to send. `since`: the position to resume from. `on_end` gets the token when it ends.

        The stream ends when the rights of its caller end or change.
        """
        self._groups = groups
        self._heartbeats = heartbeats
        self._watch = watch
        self._services = services
        self._rights = rights
        self._since = since
        self._token = token
        self._on_end = on_end
        self.status = 200

    async def respond(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Sends events until the client disconnects or the registry stops."""
        watch = self._watch
        state = scope.get("state", {})
        abort_if_silent: AbortIfSilent = state.get(ABORT_IF_SILENT, _never_abort)
        is_peer_lost = abort_if_silent(self._groups.lost_after)
        try:
            with (
                watch,
                self._rights,
                DisconnectWatch(receive, watch.interrupt) as peer,
                self._heartbeats.scheduled(self),
            ):
                try:
                    await send(_START)
                    await self._send_first_group(send)
                    self._enable_push(state.get(SEND_CHUNK))
                    while not peer.disconnected:
                        has_changed = await watch.changed()
                        if self._groups.is_stopping or self._rights.have_ended:
                            await send(_END if self._groups.is_stopping else _RIGHTS_CHANGED)
                            return
                        await self._send_next_group(send, has_changed)
                finally:
                    watch.is_peer_lost = is_peer_lost()
        finally:
            watch.push = None
            self._on_end(self._token)

    # The groups are local variables of these methods: a quiet watch keeps no bytes alive.

    async def _send_first_group(self, send: Send) -> None:
        self._position, opened, group = self._groups.first_group(self._services, self._since, self._token)
        await _send_text(send, self._groups.retry_field() + opened)
        await _send_text(send, group)

    async def _send_next_group(self, send: Send, has_changed: bool) -> None:
        self._position, opened, group = self._groups.next_group(self._services, self._position, self._token)
        if opened:
            await _send_text(send, opened)
        if group or not has_changed:
            await _send_text(send, group or self._groups.heartbeat())

    def _enable_push(self, send_chunk: SendChunk | None) -> None:
        """Has changes written as soon as they are published, while the client reads. That saves waking the task."""
        if send_chunk is not None:
            self._send_chunk = send_chunk
            self._watch.push = self._push

    def _push(self) -> bool:
        """Writes the next group at once. Returns False, and writes nothing, if the stream's task must write it."""
        if self._groups.is_stopping or self._rights.have_ended:
            return False
        position, opened, group = self._groups.next_group(self._services, self._position, self._token)
        if opened or len(group) > MAX_WRITE_BYTES or (group and not self._send_chunk(group)):
            return False
        self._position = position
        return True

    def send_heartbeat(self, snapshot: Snapshot, position: WatchPosition, heartbeat: bytes) -> None:
        """Writes the heartbeat at once if nothing has changed and the client reads. Otherwise wakes the stream's task.

        `position` is that of the snapshot.
        """
        is_current = self._position == position or self._is_current(snapshot)
        if is_current and self._watch.can_push() and self._send_chunk(heartbeat):
            self._position = position
        else:
            self._watch.interrupt()

    def _is_current(self, snapshot: Snapshot) -> bool:
        """Returns whether no watched service has changed since the position of the stream."""
        position = self._position
        return position.epoch == snapshot.epoch and not any(
            changed_services(snapshot, self._services, position.revision)
        )


async def _send_text(send: Send, text: bytes) -> None:
    """Sends the text in writes of at most `MAX_WRITE_BYTES`: a slow client makes the server hold no more than one."""
    for start in range(0, len(text), MAX_WRITE_BYTES):
        part = text if len(text) <= MAX_WRITE_BYTES else text[start : start + MAX_WRITE_BYTES]
        await send({"type": "http.response.body", "body": part, "more_body": True})


def _never_abort(_: float) -> Callable[[], bool]:
    """Never aborts: the `AbortIfSilent` of a server that has none."""
    return lambda: False
