"""The response to a watch: an endless stream of Server-Sent Events.

open, service…, synced     the full state (`full` is true), or
open, change…, synced      the changes since the position that the client resumes from; afterwards
change…, synced            the changes of a batch, in one write
change…, joined, service…, synced
                           changes, and a service that joins the watch: in full, or the changes since its position
synced                     a heartbeat, while nothing changes
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from adsum.access.sessions import RIGHTS_CHANGED
from adsum.consumers import Consumer
from adsum.core.access.principal import Principal
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.asgi import NO_STORE, Receive, Scope, Send
from adsum.dialects.native.events.event_groups import NO_POSITION, EventGroups, WatchPosition
from adsum.dialects.native.events.heartbeat import HeartbeatTimer
from adsum.dialects.native.events.watch_events import WatchedServices, changed_services, share_services
from adsum.dialects.native.requests.disconnect_watch import DisconnectWatch
from adsum.dialects.native.requests.rights_watch import RightsWatch
from adsum.ports import ABORT_IF_SILENT, ON_DISCONNECT, OPEN_CHUNKS, AbortIfSilent, ChunkSender, OpenChunks
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
        "_joining",
        "_on_end",
        "_position",
        "_rights",
        "_send_chunk",
        "_services",
        "_since",
        "_token",
        "_watch",
        "consumer",
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
        consumer: Consumer | None,
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
        self._position = NO_POSITION
        self._send_chunk: ChunkSender | None = None
        self.consumer = consumer
        """The cooperating consumer that opened the watch; None if it acknowledges nothing."""
        self._joining: dict[str, WatchPosition | None] | None = None
        """The services that join with the next group, each with the position of the client; None: none do."""
        self.status = 200

    @property
    def watch(self) -> Watch:
        return self._watch

    @property
    def principal(self) -> Principal:
        """The principal that opened the watch."""
        return self._rights.principal

    def update(self, joining: Mapping[str, WatchPosition | None], leaving: Collection[str]) -> None:
        """Sends nothing more of the services that leave, and sends those that join now, others not again.

        `joining`: the position up to which the client has each service, None for the full state. A service that joins
        again is sent as one that joins.
        """
        if not isinstance(self._services, frozenset):
            raise TypeError("a watch of all services has no service that could join or leave")
        waiting = {name: since for name, since in (self._joining or {}).items() if name not in leaving}
        self._joining = {**waiting, **joining} or None
        self._services = share_services(self._services.difference(leaving, joining))
        if self._joining:
            self._watch.wake()

    async def respond(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Sends events until the client disconnects or the registry stops."""
        watch = self._watch
        state = scope.get("state", {})
        abort_if_silent: AbortIfSilent = state.get(ABORT_IF_SILENT, _never_abort)
        is_peer_lost = abort_if_silent(self._groups.lost_after)
        slot: set[WatchStream] = self._heartbeats.add(self)
        try:
            with (
                watch,
                self._rights,
                DisconnectWatch(receive, watch.interrupt, state.get(ON_DISCONNECT)) as peer,
            ):
                try:
                    await send(_START)
                    if not self._rights.have_ended:  # They may have ended while the node caught up with the client.
                        await self._send_first_group(send)
                        self._enable_push(state.get(OPEN_CHUNKS))
                    # Looked at before each wait, too: what happens during a write does not end the wait after it.
                    while not (peer.disconnected or self._rights.have_ended):
                        has_changed = await watch.changed()
                        if self._groups.is_stopping:
                            self._disable_push()
                            await send(_END)
                            return
                        if not self._rights.have_ended:
                            await self._send_next_group(send, has_changed)
                    self._disable_push()
                    if not peer.disconnected:
                        await send(_RIGHTS_CHANGED)
                finally:
                    watch.is_peer_lost = is_peer_lost()
        finally:
            self._disable_push()
            self._heartbeats.remove(self, slot)
            self._on_end(self._token)

    # The groups are local variables of these methods: a quiet watch keeps no bytes alive.

    async def _send_first_group(self, send: Send) -> None:
        self._position, opened, group = self._groups.first_group(self._services, self._since, self._token)
        await _send_text(send, self._groups.retry_field() + opened)
        await _send_text(send, group)

    async def _send_next_group(self, send: Send, has_changed: bool) -> None:
        self._position, opened, group = self._next_group()
        self._complete_joins()
        if opened:
            await _send_text(send, opened)
        if group or not has_changed:
            await _send_text(send, group or self._groups.heartbeat())

    def _next_group(self) -> tuple[WatchPosition, bytes, bytes]:
        """Returns the next group, with the services that join. `_complete_joins` follows once it is to be sent."""
        if self._joining and isinstance(self._services, frozenset):
            return self._groups.joined_group(self._services, self._position, self._token, self._joining)
        return self._groups.next_group(self._services, self._position, self._token)

    def _complete_joins(self) -> None:
        if self._joining and isinstance(self._services, frozenset):
            self._services, self._joining = share_services(self._services.union(self._joining)), None

    def _enable_push(self, open_chunks: OpenChunks | None) -> None:
        """Has changes written as soon as they are published, while the client reads. That saves waking the task."""
        self._send_chunk = open_chunks() if open_chunks is not None else None
        if self._send_chunk is not None:
            self._watch.push = self._push

    def _disable_push(self) -> None:
        """Has only the stream's task write from now on."""
        self._watch.push = None
        if self._send_chunk is not None:
            self._send_chunk.close()

    def _push(self) -> bool:
        """Writes the next group at once. Returns False, and writes nothing, if the stream's task must write it."""
        send_chunk = self._send_chunk
        if send_chunk is None or self._rights.have_ended:
            return False
        if self._joining:
            position, opened, group = self._next_group()
        else:
            position, opened, group = self._groups.next_group(self._services, self._position, self._token)
        if opened or len(group) > MAX_WRITE_BYTES or (group and not send_chunk(group)):
            return False
        self._position = position
        if self._joining:
            self._complete_joins()
        return True

    def send_heartbeat(self, snapshot: Snapshot, position: WatchPosition, heartbeat: bytes) -> None:
        """Writes the heartbeat at once, or what has changed, if the client reads. Otherwise wakes the stream's task.

        `position` is that of the snapshot.
        """
        is_current = not self._joining and (self._position == position or self._is_current(snapshot))
        if self._send_chunk is None or not self._watch.can_push():
            self._watch.interrupt()
        elif is_current and self._send_chunk(heartbeat):
            self._position = position
        elif is_current or not self._push():
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
