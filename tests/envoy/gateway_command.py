"""`adsum gateway` as a real process with a real Envoy, an instance behind it, and callers at it."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from tests.support.programs import need

READY = "adsum gateway listens on"
"""The line that a gateway prints once it accepts requests."""
DEADLINE = 60.0
"""Seconds within which anything must happen, however slow the machine is."""


def wait_until(what: str, condition: Callable[[], object], output: Callable[[], str] = str) -> None:
    """Returns once the condition is true; after the deadline, fails with `what` and the output of `output`."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}\n{output()}"
        time.sleep(0.02)


def has_exited(pid: int) -> bool:
    """Returns whether the process has exited; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class GatewayCommand:
    """A running `adsum gateway`, or another command."""

    def __init__(self, folder: Path, args: tuple[str, ...], environ: dict[str, str], command: str = "gateway") -> None:
        need("envoy")
        self.out_path, self.err_path = folder / "gateway.out", folder / "gateway.err"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ADSUM_", "XDG_"))}
        # A temporary folder of its own shows what is left behind. A long path would not be used for sockets.
        self.tmp = Path(tempfile.mkdtemp(prefix="adsum-test-", dir="/tmp"))
        settings = folder / "adsum.toml"
        settings.touch()
        overrides = {"ADSUM_CONFIG": str(settings), "TMPDIR": str(self.tmp)}
        # What this host has joined must not matter.
        overrides |= {f"XDG_{name.upper()}_HOME": str(folder / name) for name in ("cache", "config", "data")}
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adsum", command, *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**inherited, **overrides, **environ},
            )

    @property
    def output(self) -> str:
        return self.out_path.read_text() + self.err_path.read_text()

    def wait_for_output(self, text: str) -> None:
        """Returns once the output contains `text`."""
        wait_until(repr(text), lambda: text in self.output or self.process.poll() is not None, lambda: self.output)
        assert text in self.output, self.output

    def envoys(self) -> list[int]:
        """The process ids of its running Envoys."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split() if not has_exited(int(pid))]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_exit(self) -> int:
        """Returns its exit code once it has exited."""
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """Ends it and its Envoys. A second signal makes it exit at once, and cleanly."""
        pids = self.envoys()
        for _ in range(2):
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.tmp)


class UpstreamServer:
    """An instance that answers. A request for /slow takes until `release_slow` is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.slow_requests = threading.Semaphore(0)
        """Released once for every request for /slow that has arrived."""
        self.release_slow = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow":
                    outer.slow_requests.release()
                    outer.release_slow.wait(DEADLINE)
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.release_slow.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)


class SteadyCaller:
    """Calls continuously until the end of the block; every second thread keeps its connections. Counts failures."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self._url = url
        self._stop = threading.Event()
        self.answered = 0
        self.failed: list[str] = []
        self.refused = 0
        """Calls whose connection was refused, so they were never accepted."""
        self._threads = [threading.Thread(target=self._call, args=(n % 2,)) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> SteadyCaller:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _call(self, kept: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=kept)
        with httpx.Client(trust_env=False, timeout=DEADLINE, limits=limits) as client:
            while not self._stop.is_set():
                try:
                    answer = client.get(self._url)
                except httpx.ConnectError:
                    self.refused += 1
                    time.sleep(0.05)
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                else:
                    if answer.status_code == 200:
                        self.answered += 1
                    else:
                        self.failed.append(f"{answer.status_code} {answer.text}")

    def wait_for_answers(self, count: int) -> None:
        """Returns once `count` more calls were answered."""
        target = self.answered + count
        wait_until(f"{count} more answers; failed {self.failed[:3]}", lambda: self.answered >= target)


class GatewayAddresses:
    """The addresses of a test's gateway."""

    def __init__(self, port: Callable[[], int]) -> None:
        self.listen, self.monitor = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
        self.url, self.monitor_url = f"http://{self.listen}", f"http://{self.monitor}"


class SlowCall:
    """A request for /slow that has arrived at the upstream server."""

    def __init__(self, addresses: GatewayAddresses, upstream: UpstreamServer) -> None:
        self._response: httpx.Response | None = None
        self._thread = threading.Thread(target=self._call, args=(f"{addresses.url}/slow",))
        self._thread.start()
        assert upstream.slow_requests.acquire(timeout=30)

    def result(self) -> httpx.Response | None:
        """Returns the response once it has come; None if the request was cut off."""
        self._thread.join(30)
        return self._response

    def _call(self, url: str) -> None:
        with suppress(httpx.HTTPError):
            self._response = get(url)


Start = Callable[..., GatewayCommand]
"""The fixture `start`."""


def get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.get(url)


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False
