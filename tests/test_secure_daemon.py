"""A secure node as a process: what it makes, prints and requires, and what changes while it runs."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.config.serve import ServeConfig
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid
from adsum.daemon import Daemon
from adsum.node_security import node_files
from adsum.node_security.security_folder import SecurityFolder
from tests.support.registry_daemon import RunningDaemon
from tests.support.tokens import bearer

DEADLINE = 30.0
LOOPBACK = ("--listen", "127.0.0.1:0", "--xds", "off", "--store", "memory:", "--node", "n1")


class NodeProcess:
    """`adsum serve` in a process of its own."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-m", "adsum", "serve", *LOOPBACK, *args]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ADSUM_")}
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip().rpartition(" ")[2]

    def stop(self) -> tuple[str, str]:
        """Stops the node. Returns its further output and its log."""
        self.child.send_signal(signal.SIGTERM)
        assert self.child.stdout is not None
        assert self.child.stderr is not None
        out, log = self.child.stdout.read(), self.child.stderr.read()  # `communicate` loses what is buffered.
        self.child.wait(DEADLINE)
        assert self.child.returncode == 0, log
        return out, log


@contextmanager
def _process(*args: str) -> Iterator[NodeProcess]:
    process = NodeProcess(*args)
    try:
        yield process
    finally:
        if process.child.poll() is None:
            process.child.kill()
        process.child.communicate(timeout=DEADLINE)


def _context(folder: Path) -> ssl.SSLContext:
    """Returns the context of a client that trusts the authority of the node with this data folder."""
    return ssl.create_default_context(cafile=folder / "security" / "authority.pem")


def _token(folder: Path) -> str:
    return (folder / "security" / "admin-token").read_text().strip()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_secure_node_requires_a_token_and_says_where_that_of_the_host_is(tmp_path: Path) -> None:
    with _process("--secure", "--data", str(tmp_path)) as process:
        assert process.url.startswith("https://127.0.0.1:")
        token = _token(tmp_path)
        with httpx.Client(base_url=process.url, verify=_context(tmp_path)) as http:
            assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
            refused = http.put("/api/v1/services/orders/instances/o1", json={"port": 1})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
            wrong = token[:-2] + ("BA" if token[-2] == "A" else "AA")
            assert http.get("/api/v1/services", headers=bearer(wrong)).status_code == 401
            assert http.get("/api/v1/services", headers=bearer(token)).json()["services"] == []
            status = http.get("/api/v1/status", headers=bearer(token)).json()
            assert status["security"] == "secure"
            assert [view["name"] for view in status["certificates"]] == ["node", "authority"]
            metrics = http.get("/metrics", headers=bearer(token)).text
            assert 'adsum_certificate_expiry_seconds{certificate="node"} ' in metrics
            assert "adsum_insecure 0.0" in metrics
        out, log = process.stop()
    assert f"the admin token is in {tmp_path}/security/admin-token" in out
    assert "next: adsum token invite --for client" in out
    assert token.rpartition("_")[2] not in out + log
    with _process("--secure", "--data", str(tmp_path)) as again:
        out, _ = again.stop()
    assert out == ""
    assert _token(tmp_path) == token


def test_a_certificate_of_the_authority_stands_for_its_token(tmp_path: Path) -> None:
    running = RunningDaemon(
        ServeConfig(listen="127.0.0.1:0", xds="off", store="memory:", node="n1", data=str(tmp_path), secure=True)
    )
    try:
        folder, key = SecurityFolder(tmp_path), new_key()
        authority = node_files.load_authority(folder)
        admin = node_files.read_admin_token(folder)
        assert authority is not None
        assert admin is not None
        context = _context(tmp_path)
        for token_id, code in ((admin.id, 200), ("0" * 16, 401)):
            request = create_request(key, "whoever")
            chain = authority.sign(request, name="admin@n1", token_id=token_id, role=TokenRole.CLIENT, now=time.time())
            file = tmp_path / f"{token_id}.pem"
            file.write_bytes(chain + encode_key(key))
            context = _context(tmp_path)
            context.load_cert_chain(file)
            with httpx.Client(base_url=running.url, verify=context) as http:
                assert http.get("/api/v1/status").status_code == code
        with httpx.Client(base_url=running.url, verify=context) as http:
            caller = http.get("/api/v1/caller", headers=bearer(_token(tmp_path))).json()
            assert (caller["name"], caller["method"]) == ("admin@n1", "token")
    finally:
        running.stop()


def test_a_node_on_loopback_makes_no_files_and_asks_for_nothing(tmp_path: Path) -> None:
    with _process("--data", str(tmp_path)) as process:
        assert httpx.put(f"{process.url}/api/v1/services/orders/instances/o1", json={"port": 1}).status_code == 201
        assert httpx.get(f"{process.url}/api/v1/status").json()["security"] == "loopback"
        out, log = process.stop()
    assert list(tmp_path.iterdir()) == []
    assert out == ""
    assert "insecure" not in log


@pytest.mark.parametrize("level", ["info", "error"])
def test_an_insecure_node_says_so_at_its_start_in_its_status_and_its_metrics(level: str) -> None:
    with _process("--insecure", "--log-level", level) as process:
        assert httpx.get(f"{process.url}/api/v1/status").json()["security"] == "insecure"
        assert "adsum_insecure 1.0" in httpx.get(f"{process.url}/metrics").text
        _, log = process.stop()
    assert log.count("whoever reaches this node may change everything") == 1


async def test_a_node_that_would_be_open_on_a_network_never_starts() -> None:
    with pytest.raises(Invalid, match="--secure"):
        Daemon(ServeConfig(listen="0.0.0.0:0", xds="off", store="memory:"))
    with pytest.raises(Invalid, match="--secure"):
        Daemon(ServeConfig(listen="127.0.0.1:0", xds="0.0.0.0:0", store="memory:"))


def test_the_command_says_in_one_sentence_how_to_go_on() -> None:
    command = [sys.executable, "-m", "adsum", "serve", "--listen", "0.0.0.0:0", "--store", "memory:"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    for words in ("--listen", "0.0.0.0:0", "--secure", "--insecure"):
        assert words in done.stderr


class OwnCertificate:
    """The operator's certificate in two files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.chain, self.key = folder / "own.pem", folder / "own.key"
        self.write()

    def write(self) -> None:
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        self.chain.write_bytes(leaf.cert_chain_pems[0].bytes() + self.authority.cert_pem.bytes())
        self.key.write_bytes(leaf.private_key_pem.bytes())

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())


@pytest.fixture
def own(tmp_path: Path) -> OwnCertificate:
    return OwnCertificate(tmp_path)


@pytest.fixture
def node(own: OwnCertificate, tmp_path: Path) -> Iterator[RunningDaemon]:
    """A node with the operator's own certificate."""
    running = RunningDaemon(
        ServeConfig(
            listen="127.0.0.1:0",
            xds="off",
            store="memory:",
            node="n1",
            tls_cert=str(own.chain),
            tls_key=str(own.key),
            data=str(tmp_path / "data"),
        )
    )
    yield running
    running.stop()


def _served(url: str) -> str:
    """Returns the certificate that new connections get."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


def test_a_replaced_certificate_is_served_and_open_streams_go_on(
    node: RunningDaemon, own: OwnCertificate, tmp_path: Path
) -> None:
    headers = bearer(_token(tmp_path / "data"))
    with (
        httpx.Client(base_url=node.url, verify=own.context(), headers=headers, timeout=DEADLINE) as http,
        http.stream("GET", "/api/v1/watch") as watch,
    ):
        lines = watch.iter_lines()
        _until(lambda: next(lines).startswith("event: synced"))
        before = _served(node.url)
        own.write()
        _until(lambda: _served(node.url) != before)
        assert own.chain.read_text().startswith(_served(node.url).strip())
        with httpx.Client(base_url=node.url, verify=own.context(), headers=headers) as other:
            assert other.put("/api/v1/services/orders/instances/o1", json={"port": 1}).status_code == 201
        _until(lambda: '"o1"' in next(lines))


def test_a_half_written_certificate_changes_nothing(
    node: RunningDaemon, own: OwnCertificate, caplog: pytest.LogCaptureFixture
) -> None:
    before = _served(node.url)
    own.key.write_bytes(b"")
    _until(lambda: "stays in use" in caplog.text)
    assert _served(node.url) == before


def test_a_lost_admin_token_is_replaced_and_ends_what_it_opened(
    node: RunningDaemon, own: OwnCertificate, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "security" / "admin-token"
    lost = file.read_text().strip()
    with httpx.Client(base_url=node.url, verify=own.context(), timeout=DEADLINE) as http:
        with http.stream("GET", "/api/v1/watch", headers=bearer(lost)) as watch:
            lines = watch.iter_lines()
            _until(lambda: next(lines).startswith("event: synced"))
            file.unlink()
            for _ in lines:
                pass
        _until(file.exists)
        assert http.get("/api/v1/services", headers=bearer(lost)).status_code == 401
        assert http.get("/api/v1/services", headers=bearer(file.read_text().strip())).status_code == 200


def test_init_renews_the_certificates_of_a_running_node(tmp_path: Path) -> None:
    with _process("--secure", "--data", str(tmp_path)) as process:
        before, authority = _served(process.url), (tmp_path / "security" / "authority.pem").read_bytes()
        command = [sys.executable, "-m", "adsum", "init", "--renew", "--data", str(tmp_path), "--node", "n1"]
        subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE)
        _until(lambda: _served(process.url) != before)
        assert (tmp_path / "security" / "authority.pem").read_bytes() != authority
        with httpx.Client(base_url=process.url, verify=_context(tmp_path)) as http:
            assert http.get("/api/v1/services", headers=bearer(_token(tmp_path))).status_code == 200
        process.stop()
