"""Real etcd processes for tests, alone or as a cluster. They can be killed, paused, wiped and started again."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import pytest

from adsum.etcd.messages import MESSAGE
from adsum.etcd.values import prefix_end
from adsum.run.port import claim_free_port
from tests.support.programs import PROGRAMS, find, need

START_TIMEOUT: Final = 30.0
"""Seconds within which a started etcd must be healthy."""


def encode_field(number: int, value: bytes) -> bytes:
    """Encodes a field of a message whose value is bytes, text or another message."""
    return bytes([number << 3 | 2, len(value)]) + value


ADSUM_PERMISSION: Final = b"\x08\x02" + encode_field(2, b"/adsum/") + encode_field(3, b"/adsum0")
"""The permission to read and write keys that begin with /adsum/."""


@cache
def etcd_binaries() -> Mapping[str, str]:
    """Returns the binaries that are found, by minor version such as 3.6."""
    binaries: dict[str, str] = {}
    for file in PROGRAMS["etcd"].files():
        printed = subprocess.run([file, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"etcd Version: (\d+\.\d+)", printed)
        if version is not None:
            binaries.setdefault(version[1], str(file))
    return binaries


def binary_of_version(version: str) -> str:
    """Returns the binary of a minor version such as 3.6. Skips the test without it."""
    find("etcd")
    if version not in etcd_binaries():
        pytest.skip(f"no etcd {version} is installed (put its binary into /opt/etcd-{version}/)")
    return etcd_binaries()[version]


class EtcdProcess:
    """One member. `options` are further command-line options of etcd."""

    def __init__(self, folder: Path, *options: str, name: str = "m1", scheme: str = "http", program: str = "") -> None:
        """`program` is the binary to run; by default the first that is found."""
        self._binary = program or str(need("etcd"))  # First, so that a skipped test has claimed no port.
        self.name = name
        self._claims = [claim_free_port(Random()) for _ in range(2)]
        self.port, self.peer_port = (claim.port for claim in self._claims)
        self.peer = f"http://127.0.0.1:{self.peer_port}"
        self.client = f"{scheme}://127.0.0.1:{self.port}"
        self.host_port = f"127.0.0.1:{self.port}"
        self.data = folder / name
        self._backup = folder / f"{name}-backup"
        self._log = folder / f"{name}.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.initial = f"{name}={self.peer}"

    @property
    def url(self) -> str:
        return f"etcd://{self.host_port}"

    def __enter__(self) -> Self:
        self.start()
        self.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kills the process and releases its ports; its folder stays. Idempotent."""
        self.kill()
        for claim in self._claims:
            claim.release()

    def start(self) -> None:
        command = [self._binary, "--name", self.name, "--data-dir", str(self.data)]
        command += ["--listen-client-urls", self.client, "--advertise-client-urls", self.client]
        command += ["--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer]
        command += ["--initial-cluster", self.initial, "--logger", "zap", "--log-outputs", "stderr"]
        command += ["--heartbeat-interval", "100", "--election-timeout", "1000", *self._options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        """Waits until it is healthy, which needs a leader."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.healthy():
                return
            time.sleep(0.05)
        raise AssertionError(f"etcd does not come up: {self._log.read_text()[-2_000:]}")

    def healthy(self) -> bool:
        if self.client.startswith("https"):
            return b"serving client" in self._log.read_bytes()
        try:
            with urlopen(f"{self.client}/health", timeout=2.0) as answer:
                return b'"true"' in answer.read()
        except (URLError, OSError):
            return False

    def kill(self) -> None:
        """Kills the process with SIGKILL; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Stops the process. Returns when all threads have stopped: until then one of them may still answer."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + START_TIMEOUT
        while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
            assert time.monotonic() < deadline, "etcd does not stop"
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Deletes its data. It must not run."""
        shutil.rmtree(self.data)

    def save(self) -> None:
        """Makes a backup. It must not run."""
        shutil.copytree(self.data, self._backup)

    def restore(self) -> None:
        """Restores the backup. It must not run."""
        self.wipe()
        shutil.copytree(self._backup, self.data)

    def put(self, key: bytes, value: bytes) -> None:
        """Writes a key as another program would."""
        self.call("KV/Put", MESSAGE["PutRequest"](key=key, value=value).SerializeToString())

    def compact(self, revision: int) -> None:
        """Compacts the history before that revision."""
        number, request = revision, b"\x10\x01\x08"  # CompactionRequest: physical, and the revision as a varint
        while number > 0x7F:
            request += bytes([number & 0x7F | 0x80])
            number >>= 7
        self.call("KV/Compact", request + bytes([number]))

    def enable_auth(self) -> None:
        """Enables authentication with two users: root, and adsum, who may read and write below /adsum/."""
        for method, request in (
            ("UserAdd", encode_field(1, b"root") + encode_field(2, b"r00t")),
            ("RoleAdd", encode_field(1, b"root")),
            ("UserGrantRole", encode_field(1, b"root") + encode_field(2, b"root")),
            ("UserAdd", encode_field(1, b"adsum") + encode_field(2, b"s3cret")),
            ("RoleAdd", encode_field(1, b"registry")),
            ("RoleGrantPermission", encode_field(1, b"registry") + encode_field(2, ADSUM_PERMISSION)),
            ("UserGrantRole", encode_field(1, b"adsum") + encode_field(2, b"registry")),
            ("AuthEnable", b""),
        ):
            self.call(f"Auth/{method}", request)

    def call_as_root(self, method: str, request: bytes) -> None:
        """Calls its API as root, after `enable_auth`."""
        self.call(method, request, self.token("root", "r00t"))

    def end_leases(self, prefix: bytes) -> None:
        """Revokes the leases of the keys that begin with `prefix`, as root, as if they had expired."""
        token = self.token("root", "r00t")
        request = MESSAGE["RangeRequest"](key=prefix, range_end=prefix_end(prefix)).SerializeToString()
        for key_value in MESSAGE["RangeResponse"].FromString(self.call("KV/Range", request, token)).kvs:
            if key_value.lease:
                revoke = MESSAGE["LeaseRevokeRequest"](ID=key_value.lease).SerializeToString()
                self.call("Lease/LeaseRevoke", revoke, token)

    def token(self, user: str, password: str) -> str:
        answer = self.call("Auth/Authenticate", encode_field(1, user.encode()) + encode_field(2, password.encode()))
        token: str = MESSAGE["AuthenticateResponse"].FromString(answer).token
        return token

    def call(self, method: str, request: bytes, token: str = "") -> bytes:
        """Calls its API. Request and answer are encoded messages."""
        metadata = (("token", token),) if token else ()
        with grpc.insecure_channel(self.host_port) as channel:
            call = channel.unary_unary(f"/etcdserverpb.{method}", None, None)
            answer: bytes = call(request, timeout=10.0, metadata=metadata)
            return answer

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def etcd_cluster(folder: Path, size: int = 3) -> Iterator[Sequence[EtcdProcess]]:
    """A cluster of `size` members."""
    members = [EtcdProcess(folder, name=f"m{number + 1}") for number in range(size)]
    initial = ",".join(member.initial for member in members)
    try:
        for member in members:
            member.initial = initial
            member.start()
        for member in members:
            member.wait()
        yield members
    finally:
        for member in members:
            member.close()
