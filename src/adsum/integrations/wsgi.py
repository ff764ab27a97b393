"""Registers any WSGI app (Flask, Django, …) while it is served, as one instance per listening socket.

Under gunicorn, in gunicorn.conf.py; the arbiter registers, the workers do not:

    from adsum.integrations.wsgi import gunicorn_hooks
    when_ready, on_exit = gunicorn_hooks("orders", check="http:/health")

Under any other server (waitress, `flask run`, uwsgi with `enable-threads` and `lazy-apps`):

    app = registered(app, service="orders", port=8000, check="http:/health")

SIGTERM is handled here first: the instance drains, then the server ends in its own way. No request is lost if the
server finishes those in progress.
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
"""Signals that start a drain. Ctrl-C (SIGINT) is not among them, so that it stops a server at once."""

_log = logging.getLogger(__name__)
_arbiters: dict[tuple[int, str], _ServerRun] = {}
"""The registration of each arbiter. A reload makes new hooks, which must end what the old ones began."""


def registered(
    app: WSGIApp,
    service: str,
    port: int | None = None,
    *,
    client: SyncClient | None = None,
    drain_on: Iterable[int] = DRAIN_ON,
    **options: Any,
) -> WSGIApp:
    """Returns the app, registered as an instance of `service` once this process listens.

    Call it when the server loads the app. `port` None is the port that the server listens on. `options` are those of
    `Client.register`. Without `client`, a new one connects to the registry at `ADSUM_URL`. Of several workers one
    registers; when it ends, another one does. Raises `Invalid`.
    """
    run = _ServerRun(service, port, client, drain_on, options)
    run.begin()

    def served(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        run.begin()  # Registers anew in a process that was forked since; else does nothing.
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
    """Returns the hooks `when_ready` and `on_exit`: the arbiter registers its listening socket, like `registered`."""

    def when_ready(server: Any) -> None:
        run = _ServerRun(service, port or _port_of(server), client, drain_on, {**options, "already_listening": True})
        _arbiters[os.getpid(), service] = run
        run.begin()

    def on_exit(_server: Any) -> None:
        run = _arbiters.pop((os.getpid(), service), None)
        if run is not None:
            run.end()

    return when_ready, on_exit


class _ServerRun:
    """One run of a server, in one of its processes. Whatever waits runs on the client's background loop."""

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
        self._owns_client = client is None
        self._drain_on = tuple(drain_on)
        self._options = options
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._registration: SocketRegistration | None = None
        self._ended = False
        self._signals: SignalInterceptor | None = None

    def begin(self) -> None:
        """Starts the registration. Idempotent within a process. Raises `Invalid`."""
        if self._pid == os.getpid():
            return
        if self._pid is not None:
            self._lock = threading.Lock()  # The parent may have held it when it forked.
        with self._lock:
            if self._pid == os.getpid():
                return
            self._registration = registration = SocketRegistration(self._service, self._port, **self._options)

            async def begin(client: Client) -> None:
                registration.start(client)

            self._client.run(begin)
            self._pid, self._ended = os.getpid(), False
            atexit.register(self.end)
            self._signals = SignalInterceptor(self._drain_on, self._drain_first)
            if not self._signals.install():
                _log.debug(
                    "signals can't be handled in this thread: the instance is deregistered once the server has stopped"
                )

    def end(self) -> None:
        """Ends the registration. Idempotent; does nothing in a process that did not begin it."""
        registration = self._registration
        if registration is None or self._ended or self._pid != os.getpid():
            return
        self._ended = True
        atexit.unregister(self.end)
        with suppress(RuntimeError):  # The client is closed, and has deregistered.
            self._client.run(lambda _: registration.stop())
        if self._signals is not None:
            self._signals.remove()  # Only now: a stop signal may still come while the registration ends.
        if self._owns_client:
            self._client.close()

    def _drain_first(self, resume: Callable[[], None], final: bool) -> None:
        """Drains before the server handles the signal. Called in a signal handler.

        A thread does the work while the server goes on.
        """
        registration = self._registration
        if registration is not None:
            registration.mark_stopping()
        if self._ended:
            return  # The process is ending, and Python starts no more threads.

        def drain() -> None:
            try:
                if registration is not None:
                    self._client.run(lambda _: registration.drain())
                    if final:
                        self._client.run(lambda _: registration.stop())
            except (AdsumError, RuntimeError):
                _log.exception("%s: the drain failed", self._service)
            finally:
                resume()

        threading.Thread(target=drain, name="adsum-drain", daemon=True).start()


def _port_of(server: Any) -> int:
    """Returns the one TCP port that gunicorn listens on. Raises `Invalid` if there are none or several."""
    names = [listener.getsockname() for listener in server.LISTENERS] or list(server.cfg.address)
    ports = {int(name[1]) for name in names if isinstance(name, tuple)}
    if len(ports) != 1:
        listening = "no TCP port" if not ports else "ports " + ", ".join(map(str, sorted(ports)))
        raise Invalid("port", f"must be given: gunicorn listens on {listening}")
    return ports.pop()
