"""Who an Envoy talks to, as the system sees it: for one that can't be asked. Linux only; elsewhere nobody is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.envoy.process.envoy_instance import EnvoyInstance

_ESTABLISHED: Final = "01"


@dataclass(frozen=True, slots=True)
class TcpConnectionCounts:
    """Connections of clients, and those to instances."""

    downstream: int
    upstream: int

    @property
    def max_active(self) -> int:
        """Connections of clients on which a request may still run: each needs one to an instance, too.

        Idle ones are no more after seconds: those to instances are closed, and clients that are answered are let go.
        """
        return min(self.downstream, self.upstream)


def count_connections(envoy: EnvoyInstance) -> TcpConnectionCounts:
    """Its connections now; it may have thousands, and takes as long as that does."""
    doors = {port for _, port in envoy.plan.listen_addresses}
    others = {*doors, *(port for _, port in envoy.plan.all_addresses)}
    registry = {port for _, port in envoy.plan.registry_nodes}
    clients = instances = 0
    for local, remote in _connections(envoy.process.pid):
        if local in doors:
            clients += 1
        elif local not in others and remote not in registry:
            instances += 1
    return TcpConnectionCounts(clients, instances)


def _connections(pid: int) -> Iterator[tuple[int, int]]:
    """The local and the remote port of each."""
    try:
        own = set(_opened(pid))
        listed = [Path(f"/proc/{pid}/net/{each}").read_text() for each in ("tcp", "tcp6")]
    except OSError:
        return
    for line in (line.split() for table in listed for line in table.splitlines()[1:]):
        if line[3] == _ESTABLISHED and f"socket:[{line[9]}]" in own:
            yield _port(line[1]), _port(line[2])


def _opened(pid: int) -> Iterator[str]:
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It was closed meanwhile.
            yield each.readlink().name


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
