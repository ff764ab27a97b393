"""Counts an Envoy's TCP connections from /proc, for an Envoy whose admin interface no longer answers.

Linux only, and only with the plan's `process_access`. See docs/envoy.md.
"""

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
    """Downstream connections (from clients) and upstream connections (to instances)."""

    downstream: int
    upstream: int

    @property
    def max_active(self) -> int:
        """The most downstream connections on which a request may be in progress: each needs an upstream one, too.

        Idle ones disappear within seconds: Envoy closes idle upstream connections, and a draining Envoy closes a
        client's connection after its response.
        """
        return min(self.downstream, self.upstream)


def count_connections(envoy: EnvoyInstance) -> TcpConnectionCounts | None:
    """Returns the counts of one Envoy; None if they can't be seen. The time grows with their number."""
    connections = _connections(envoy.process.pid) if envoy.plan.process_access else None
    if connections is None:
        return None
    listen_ports = {port for _, port in envoy.plan.listen_addresses}
    own_ports = {*listen_ports, *(port for _, port in envoy.plan.all_addresses)}
    registry_ports = {port for _, port in envoy.plan.registry_nodes}
    downstream = upstream = 0
    for local, remote in connections:
        if local in listen_ports:
            downstream += 1
        elif local not in own_ports and remote not in registry_ports:
            upstream += 1
    return TcpConnectionCounts(downstream, upstream)


def _connections(pid: int) -> list[tuple[int, int]] | None:
    """Returns the local and the remote port of each established connection; None if the system does not show them."""
    try:
        sockets = set(_open_files(pid))
        tables = [Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6")]
    except OSError:
        return None
    lines = (line.split() for table in tables for line in table.splitlines()[1:])
    return [
        (_port(line[1]), _port(line[2]))
        for line in lines
        if line[3] == _ESTABLISHED and f"socket:[{line[9]}]" in sockets
    ]


def _open_files(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # It was closed in the meantime.
            yield descriptor.readlink().name


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
