"""A node as a process: start, output, reload and end."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import adsum
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from adsum.daemon import Daemon
from adsum.servers.http import ListenError, listen, socket_url
from tests.support.etcd_process import EtcdProcess, encode_field
from tests.support.registry_daemon import RunningDaemon

DEADLINE = 30.0
PROGRAM = """
import json, sys
from adsum.config.serve import ServeConfig
from adsum.core.errors import AdsumError
from adsum.node_process import serve
try:
    serve(ServeConfig(**json.loads(sys.argv[1])))
except AdsumError as error:
    sys.exit(str(error))
"""


class DaemonProcess:
    """A daemon in a process of its own."""

    def __init__(self, environment: dict[str, str] | None = None, **config: object) -> None:
        config = {"listen": "127.0.0.1:0", "xds": "off", "store": "memory:", "node": "n1"} | config
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )
        assert self.child.stdout is not None
        self.first_line = self.child.stdout.readline().strip()
        self.url = self.first_line.rpartition(" ")[2]

    def signal_and_wait(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends the signal and waits; returns the exit code and the log."""
        self.child.send_signal(number)
        _, errors = self.child.communicate(timeout=DEADLINE)
        return self.child.returncode, errors


@contextmanager
def _process(environment: dict[str, str] | None = None, **config: object) -> Iterator[DaemonProcess]:
    process = DaemonProcess(environment, **config)
    try:
        yield process
    finally:
        if process.child.poll() is None:
            process.child.kill()
        process.child.communicate(timeout=DEADLINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_prints_its_address_serves_and_stops_cleanly(number: int) -> None:
    with _process() as process:
        assert process.first_line.startswith(f"adsum {adsum.__version__} listens on http://127.0.0.1:")
        with httpx.stream("GET", f"{process.url}/api/v1/watch", timeout=DEADLINE) as watch:
            lines = watch.iter_lines()
            while not next(lines).startswith("event: synced"):
                pass
            code, errors = process.signal_and_wait(number)
            assert ": the registry is stopping" in list(lines)
        assert code == 0
        assert "Traceback" not in errors


def test_a_daemon_runs_on_although_its_output_fails() -> None:
    config = json.dumps({"listen": "127.0.0.1:0", "store": "memory:"})
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, config], stdout=full, stderr=subprocess.PIPE, text=True
        ) as child,
    ):
        assert child.stderr is not None
        logged = child.stderr.readline()
        try:
            assert httpx.get(f"{logged.split(' on ')[1].split()[0]}/readyz", timeout=DEADLINE).status_code == 200
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == 0


async def test_a_reload_applies_some_settings_and_names_the_others(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Daemon(ServeConfig(listen="127.0.0.1:0", store="memory:", xds="off"))
    await daemon.start()
    try:
        with caplog.at_level(logging.INFO, "adsum"):
            await daemon.reload(
                ServeConfig(
                    listen="127.0.0.1:0", store="memory:", xds="off", node="x", probe_deny=("10.0.0.0/8",), probes=9
                )
            )
        messages = [record.getMessage() for record in caplog.records if "settings" in record.getMessage()]
        assert messages == [
            "the settings were read again; changed: probes, probe_deny",
            "these settings change at the next restart only: node",
        ]
        body = {"address": "10.1.2.3", "port": 80}
        async with httpx.AsyncClient() as http:
            url = f"{daemon.urls[0]}/api/v1/services/orders/instances/o1"
            assert (await http.put(url, json=body)).status_code == 422
            await daemon.reload(ServeConfig(listen="127.0.0.1:0", store="memory:", xds="off"))
            assert (await http.put(url, json=body)).status_code == 201
    finally:
        await daemon.stop()


def test_sighup_reloads_the_file(tmp_path: Path) -> None:
    file = tmp_path / "adsum.toml"
    file.write_text('[serve]\nlisten = "127.0.0.1:0"\nxds = "off"\nstore = "memory:"\n')
    command = [sys.executable, "-m", "adsum", "serve", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            child.stdout.readline()
            for more, words in (
                ("guard_share = 0.9\n", "changed: guard_share"),
                ("guard_share = 7\n", "the settings stay as they were"),
                ('guard_share = 0.9\nnode = "other"\n', "at the next restart only: node"),
            ):
                file.write_text(f'[serve]\nlisten = "127.0.0.1:0"\nxds = "off"\nstore = "memory:"\n{more}')
                child.send_signal(signal.SIGHUP)
                while words not in (line := child.stderr.readline()):
                    assert line, f"it ended without {words!r}"
        finally:
            child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == 0


def test_sighup_does_not_stop_the_daemon() -> None:
    with _process() as process:
        process.child.send_signal(signal.SIGHUP)
        assert httpx.get(f"{process.url}/readyz").status_code == 200


def test_a_second_signal_ends_the_daemon_at_once() -> None:
    with _process() as process:
        host, port = process.url.removeprefix("http://").split(":")
        with ExitStack() as stack:
            for _ in range(4):  # Responses that clients do not read hold up the stop.
                unread = stack.enter_context(socket.socket())
                unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                unread.connect((host, int(port)))
                unread.sendall(b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 200)
            _until_metric(process.url, "adsum_unsent_bytes", 250_000.0)
            process.child.send_signal(signal.SIGTERM)
            _until_refused(process.url)
            code, _ = process.signal_and_wait()
        assert code == -signal.SIGTERM


def _until_metric(url: str, name: str, least: float) -> None:
    deadline = time.monotonic() + DEADLINE
    while float(_metric(url, name)) < least:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _metric(url: str, name: str) -> str:
    text = httpx.get(f"{url}/metrics").text
    return next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} "))


def _until_refused(url: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            return
        time.sleep(0.02)
    raise AssertionError("the daemon still accepts connections")


def test_acknowledged_writes_survive_a_kill(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'adsum.db'}"
    with _process(store=store) as process:
        for n in range(20):
            httpx.put(f"{process.url}/api/v1/services/orders/instances/o{n}", json={"port": 8000 + n})
        before = httpx.get(f"{process.url}/api/v1/services/orders").json()
        process.child.kill()
        process.child.wait(DEADLINE)
    with _process(store=store) as process:
        after = httpx.get(f"{process.url}/api/v1/services/orders").json()
        assert (after["epoch"], after["instances"]) == (before["epoch"], before["instances"])
        assert process.signal_and_wait()[0] == 0


def test_a_used_address_and_a_used_store_file_end_with_one_sentence(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'adsum.db'}"
    with _process(store=store) as first:
        taken: list[dict[str, object]] = [{"listen": first.url.removeprefix("http://")}, {"store": store}]
        for config in taken:
            with _process(None, **config) as second:
                _, errors = second.child.communicate(timeout=DEADLINE)
                assert second.child.returncode == 1
                assert len(errors.splitlines()) == 1, errors


def test_systemd_is_notified_when_the_daemon_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(DEADLINE)
        with _process({"NOTIFY_SOCKET": str(tmp_path / "notify")}) as process:
            assert listening.recv(100) == b"READY=1"
            process.signal_and_wait()
            assert listening.recv(100) == b"STOPPING=1"


def test_every_change_is_logged_with_cause_and_actor() -> None:
    with _process(log_format="json") as process:
        instance = f"{process.url}/api/v1/services/orders/instances/o1"
        httpx.put(instance, json={"port": 1}, headers={"Adsum-Actor": "deploy"})
        httpx.delete(f"{instance}?reason=scaled%20down")
        _, errors = process.signal_and_wait()
    lines = [json.loads(line) for line in errors.splitlines()]
    changes = [line for line in lines if line["message"] == "change"]
    assert [(change["cause"], change["actor"], change["status"], change["reason"]) for change in changes] == [
        ("registered", "anonymous@127.0.0.1", "passing", ""),
        ("deregistered", "anonymous@127.0.0.1", "gone", "scaled down"),
    ]
    assert [change["claimed"] for change in changes] == ["deploy", ""]
    assert all(line["at"].endswith("Z") for line in lines)


def test_the_metrics_count_requests_changes_and_leases(daemon: RunningDaemon) -> None:
    httpx.put(f"{daemon.url}/api/v1/services/orders/instances/o1", json={"port": 1})
    httpx.get(f"{daemon.url}/api/v1/services/orders")
    httpx.get(f"{daemon.url}/nowhere")
    _until(daemon, lambda status: status.get("leases"))  # The keeper grants the lease on its own.
    answer = httpx.get(f"{daemon.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = set(answer.text.splitlines())
    for line in (
        'adsum_request_seconds_count{code="201",operation="register"} 1.0',
        'adsum_request_seconds_count{code="200",operation="read_service"} 1.0',
        'adsum_request_seconds_count{code="404",operation="unknown"} 1.0',
        'adsum_requests_refused_total{error="UnknownPath",operation="unknown"} 1.0',
        'adsum_changes_total{cause="registered"} 1.0',
        "adsum_batch_changes_count 1.0",
        "adsum_commit_seconds_count 1.0",
        "adsum_leases 1.0",
        "adsum_watches 0.0",
        "adsum_instances 1.0",
        "adsum_revision 1.0",
        "adsum_check_lag_seconds 0.0",
    ):
        assert line in lines, answer.text


def test_the_status_counts_what_the_node_keeps(daemon: RunningDaemon) -> None:
    body = {"port": 1, "checks": [{"name": "web", "kind": "tcp", "interval": 60}]}
    httpx.put(f"{daemon.url}/api/v1/services/orders/instances/o1", json=body)
    httpx.put(f"{daemon.url}/api/v1/services/orders/instances/o2", json={"port": 2})
    status_body = httpx.get(f"{daemon.url}/api/v1/status").json()
    assert (status_body["node"], status_body["store"], status_body["ready"]) == ("test", "memory:", True)
    assert (status_body["services"], status_body["instances"], status_body["revision"]) == (1, 2, 2)
    assert sum(status_body["status_counts"].values()) == 2
    assert status_body["uptime"] >= 0


def test_a_node_with_an_old_password_is_not_ready_until_its_file_has_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.registry.registry.UNREADY_AFTER", 3.0)
    file = tmp_path / "password"
    file.write_text("s3cret")
    with EtcdProcess(tmp_path) as etcd:
        etcd.enable_auth()
        store = f"etcd://adsum@{etcd.host_port}?password-file={file}"
        daemon = RunningDaemon(ServeConfig(listen="127.0.0.1:0", xds="off", store=store, node="n1"))
        try:
            _until(daemon, lambda status: status["ready"] and status.get("shards") == 256)
            etcd.call_as_root("Auth/UserChangePassword", encode_field(1, b"adsum") + encode_field(2, b"an0ther"))
            etcd.end_leases(b"/adsum/cluster/nodes/")
            status = _until(
                daemon,
                lambda status: (
                    "nothing can be written here" in status.get("unready_reason", "")
                    and "invalid user ID or password" in status["store_condition"].get("trouble", "")
                ),
            )
            assert status["store_condition"]["trouble"] in status["unready_reason"]
            assert (status["ready"], status.get("shards", 0)) == (False, 0)
            assert httpx.get(f"{daemon.url}/readyz").status_code == 503
            assert float(_metric(daemon.url, "adsum_isolated_seconds")) > 3.0
            written = httpx.put(f"{daemon.url}/api/v1/services/orders/instances/o1", json={"port": 1})
            assert (written.status_code, "user ID or password" in written.text) == (503, True)
            assert written.headers["retry-after"]
            file.write_text("an0ther")
            # The session is back before the next probe of etcd's health shows that writes are accepted again.
            status = _until(
                daemon,
                lambda status: (
                    status["ready"] and status.get("shards") == 256 and "trouble" not in status["store_condition"]
                ),
            )
            assert status.get("isolated_seconds", 0.0) == 0.0
        finally:
            daemon.stop()


def _until(daemon: RunningDaemon, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Returns the status of the node once the condition holds."""
    deadline = time.monotonic() + DEADLINE
    while True:
        status_body: dict[str, Any] = httpx.get(f"{daemon.url}/api/v1/status").json()
        if condition(status_body):
            return status_body
        assert time.monotonic() < deadline, status_body
        time.sleep(0.05)


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "100.100.100.200", "::ffff:169.254.169.254"])
def test_a_forbidden_address_is_refused(daemon: RunningDaemon, address: str) -> None:
    answer = httpx.put(f"{daemon.url}/api/v1/services/a/instances/b", json={"port": 1, "address": address})
    assert (answer.status_code, answer.json()["field"]) == (422, "address")


async def test_a_refused_start_leaves_nothing_behind() -> None:
    (listening,) = listen("127.0.0.1:0")
    listening.listen()
    daemon = Daemon(ServeConfig(listen=socket_url(listening).removeprefix("http://"), store="memory:", node="n"))
    with pytest.raises(ListenError):
        await daemon.start()
    await daemon.stop()
    listening.close()
    with pytest.raises(Invalid):
        Daemon(ServeConfig(store="paper:", node="n"))
