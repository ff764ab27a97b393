"""Hosts of a test: network namespaces at one bridge, each with an address, a host name and files of its own.

This works on Linux, as root or where users may create namespaces. `network` skips the test elsewhere.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.programs import need

SUBNET: Final = "10.77.0"
"""The first three parts of the addresses."""
TIMEOUT: Final = 20.0
"""Seconds that a command has to set up a part of the network."""
PROGRAMS: Final = ("unshare", "nsenter", "ip")
CREATORS: Final = (("unshare",), ("unshare", "--map-root-user"))
"""The commands that create namespaces: as root, and as any user in a user namespace."""
PROBE: Final = "ip link add name probe0 type bridge && ip link add name probe1 type veth peer name probe2"

# Programs of the test must not find a registry that the machine has joined. `cat` ends when the test does.
HOST_SCRIPT: Final = """
hostname "$1" && ip link set lo up && mount --bind "$2" /etc/hosts || exit 1
for folder in /etc/adsum /var/lib/adsum; do [ ! -d $folder ] || mount -t tmpfs none $folder || exit 1; done
echo ready
exec cat
"""


class NetworkHost:
    """A host of the network. `home` is the home folder of the user who runs its programs."""

    def __init__(self, name: str, address: str, pid: int, enter: Sequence[str], home: Path) -> None:
        self.name = name
        self.address = address
        self.home = home
        self._enter = (*enter, "--target", str(pid), "--net", "--uts", "--mount", "--wd=.")

    @property
    def environ(self) -> dict[str, str]:
        """The variables with which programs of this host find its files."""
        data, config = self.home / ".local" / "share", self.home / ".config"
        return {"HOME": str(self.home), "XDG_DATA_HOME": str(data), "XDG_CONFIG_HOME": str(config)}

    def command(self, *argv: str) -> list[str]:
        """Returns the command that runs a program on this host. It becomes the program: it has its process id."""
        return [*self._enter, "--", *argv]


class PrivateNetwork:
    """A bridge, and the hosts at it."""

    def __init__(self, folder: Path, creator: Sequence[str]) -> None:
        self._folder = folder
        self._is_root = creator == CREATORS[0]
        self._names = folder / "hosts"
        self._names.write_text("127.0.0.1 localhost\n::1 localhost\n")
        self._processes: list[subprocess.Popen[bytes]] = []
        script = "ip link set lo up && ip link add name bridge0 type bridge && ip link set bridge0 up && echo ready"
        self._bridge = self._start([*creator, "--net", "sh", "-c", f"{script} && exec cat"])
        self._count = 0

    def add_host(self, name: str) -> NetworkHost:
        """Adds a host to the network. Each host finds the others by their names."""
        self._count += 1
        address = f"{SUBNET}.{self._count}"
        with self._names.open("a") as names:
            names.write(f"{address} {name}\n")
        script = ["sh", "-c", HOST_SCRIPT, "host", name, str(self._names)]
        pid = self._start([*self._in_bridge, "unshare", "--net", "--uts", "--mount", *script])
        home = self._folder / name
        # A folder that exists is where root's `adsum join` writes, too, in place of /etc.
        (home / ".config" / "adsum" / "registry").mkdir(parents=True, mode=0o700)
        host = NetworkHost(name, address, pid, self._enter, home)
        cable = f"cable{self._count}"
        self._run([*self._in_bridge, *f"ip link add name {cable} type veth peer name eth0 netns {pid}".split()])
        self._run([*self._in_bridge, *f"ip link set {cable} master bridge0 up".split()])
        for command in (
            f"ip addr add {address}/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default dev eth0",
        ):
            self._run(host.command(*command.split()))
        return host

    def cut(self, host: NetworkHost) -> None:
        """Takes the cable out of a host."""
        self._run(host.command(*["ip", "link", "set", "eth0", "down"]))

    def connect(self, host: NetworkHost) -> None:
        """Puts the cable in again."""
        self._run(host.command(*["ip", "link", "set", "eth0", "up"]))
        self._run(host.command(*["ip", "route", "replace", "default", "dev", "eth0"]))

    def close(self) -> None:
        """Ends the namespaces. The programs in them must have ended."""
        for process in reversed(self._processes):
            process.kill()
            process.communicate()

    @property
    def _enter(self) -> tuple[str, ...]:
        return ("nsenter",) if self._is_root else ("nsenter", "--user", "--preserve-credentials")

    @property
    def _in_bridge(self) -> list[str]:
        return [*self._enter, "--target", str(self._bridge), "--net", "--"]

    def _start(self, command: Sequence[str]) -> int:
        """Starts a process that keeps a namespace. Returns its id once the namespace is set up."""
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", f"no namespace: {' '.join(command)}"
        return process.pid

    @staticmethod
    def _run(command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def namespace_creator() -> Sequence[str]:
    """Returns the command that creates network namespaces here; empty if that is not possible.

    Skips the test if a program is missing.
    """
    for program in PROGRAMS:
        need(program)
    for command in CREATORS:
        probe = [*command, "--net", "--uts", "--mount", "sh", "-c", PROBE]
        if subprocess.run(probe, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0:
            return command
    return ()


@contextmanager
def network(folder: Path) -> Iterator[PrivateNetwork]:
    """Yields an empty network. Skips the test where namespaces can't be created."""
    creator = namespace_creator()
    if not creator:
        pytest.skip(
            "this system permits no network namespaces: they need root, or permission to create user namespaces"
        )
    opened = PrivateNetwork(folder, creator)
    try:
        yield opened
    finally:
        opened.close()
