"""Any WSGI app (Flask, Django, …): listed while it is served, one instance per listening socket.

Under gunicorn, in gunicorn.conf.py, where the arbiter registers and no worker does:

    from adsum.integrations.wsgi import gunicorn_hooks
    when_ready, on_exit = gunicorn_hooks("orders", check="http:/health")

Under any other server (waitress, `flask run`, uwsgi with `enable-threads` and `lazy-apps`):

    app = registered(app, service="orders", port=8000, check="http:/health")

SIGTERM is heard first: drain, then the server's own ending, so that no request is lost where the server finishes those
that it has.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from adsum.client.client import Client
from adsum.client.registration.signal_interceptor import SignalInterceptor
from adsum.client.sync import SyncClient
from adsum.core.errors import AdsumError, Invalid
from adsum.integrations.socket_registration import SocketRegistration

WSGIApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Hook: TypeAlias = Callable[[Any], None]

DRAIN_ON: Final = (signal.SIGTERM,)
"""What tells a server to end in earnest. Ctrl-C is for people who don't want to wait."""

_log = logging.getLogger(__name__)
_arbiters: dict[tuple[int, str], _Stay] = {}
"""What each arbiter registered: a reload makes new hooks, and they must end what the old ones began."""


def registered(
    app: WSGIApp,
    service: str,
    port: int | None = None,
    *,
    client: SyncClient | None = None,
    drain_on: Iterable[int] = DRAIN_ON,
    **options: Any,
) -> WSGIApp:
    """The app, listed as an instance of `service` from when this process listens: call it as the server loads the app.

    `port` None: the one that the server listens on. `options` are those of `Client.register`. Without `client` one of
    its own asks the registry that `ADSUM_URL` names. Of several workers the first one registers; when it ends, another
    does. Raises `Invalid`.
    """
    stay = _Stay(service, port, client, drain_on, options)
    stay.begin()

    def served(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        stay.begin()  # In a process forked since, this begins anew; else it does nothing.
        return app(environ, start_response)

    return served


def gunicorn_hooks(
    service: str,
    port: int | None = None,
    *,
    client: SyncClient | None = None,
    drain_on: Iterable[int] = DRAIN_ON,
    **options: Any,
) -> tuple[Hook, Hook]:
    """The server hooks `when_ready` and `on_exit`: the arbiter registers what it listens on. As `registered`."""

    def when_ready(server: Any) -> None:
        stay = _Stay(service, port or _port_of(server), client, drain_on, {**options, "already_listening": True})
        _arbiters[os.getpid(), service] = stay
        stay.begin()

    def on_exit(_server: Any) -> None:
        stay = _arbiters.pop((os.getpid(), service), None)
        if stay is not None:
            stay.end()

    return when_ready, on_exit


class _Stay:
    """One run of a server, seen from one of its processes. What waits, waits on the client's background loop."""

    def __init__(
        self,
        service: str,
        port: int | None,
        client: SyncClient | None,
        drain_on: Iterable[int],
        options: dict[str, Any],
    ) -> None:
        self._service = service
        self._port = port
        self._client = client or SyncClient()
        self._ours = client is None
        self._drain_on = tuple(drain_on)
        self._options = options
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._attendance: SocketRegistration | None = None
        self._ended = False
        self._before: SignalInterceptor | None = None

    def begin(self) -> None:
        """Idempotent in a process. Raises `Invalid`."""
        if self._pid == os.getpid():
            return
        if self._pid is not None:
            self._lock = threading.Lock()  # The parent may have held it as it forked.
        with self._lock:
            if self._pid == os.getpid():
                return
            self._attendance = attendance = SocketRegistration(self._service, self._port, **self._options)

            async def begin(client: Client) -> None:
                attendance.start(client)

            self._client.run(begin)
            self._pid, self._ended = os.getpid(), False
            atexit.register(self.end)
            self._before = SignalInterceptor(self._drain_on, self._part_first)
            if not self._before.install():
                _log.debug("no signal can be heard here: callers are told only when the server has stopped")

    def end(self) -> None:
        """Idempotent; does nothing in a process that did not begin."""
        attendance = self._attendance
        if attendance is None or self._ended or self._pid != os.getpid():
            return
        self._ended = True
        atexit.unregister(self.end)
        with suppress(RuntimeError):  # The client was closed: it has deregistered.
            self._client.run(lambda _: attendance.stop())
        if self._before is not None:
            self._before.remove()  # Only now: a server that stops may tell us while we end.
        if self._ours:
            self._client.close()

    def _part_first(self, resume: Callable[[], None], final: bool) -> None:
        """Called in a signal: the rest in a thread, for the server must go on serving meanwhile."""
        attendance = self._attendance
        if attendance is not None:
            attendance.mark_stopping()
        if self._ended:
            return  # The process ends as it is, and Python may start no thread any more.

        def part() -> None:
            try:
                if attendance is not None:
                    self._client.run(lambda _: attendance.drain())
                    if final:
                        self._client.run(lambda _: attendance.stop())
            except (AdsumError, RuntimeError):
                _log.exception("%s: not drained", self._service)
            finally:
                resume()

        threading.Thread(target=part, name="adsum-drain", daemon=True).start()


def _port_of(server: Any) -> int:
    """The one TCP port that gunicorn listens on. Raises `Invalid` if there are none or several."""
    names = [listener.getsockname() for listener in server.LISTENERS] or list(server.cfg.address)
    ports = {int(name[1]) for name in names if isinstance(name, tuple)}
    if len(ports) != 1:
        what = "no TCP port" if not ports else "ports " + ", ".join(map(str, sorted(ports)))
        raise Invalid("port", f"must be said: gunicorn listens on {what}")
    return ports.pop()
