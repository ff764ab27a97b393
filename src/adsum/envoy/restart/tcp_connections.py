"""Who an Envoy talks to, as the system sees it: for one that can't be asked. Linux only; elsewhere nobody is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.envoy.process.envoy_instance import Incarnation

_ESTABLISHED: Final = "01"


@dataclass(frozen=True, slots=True)
class Conversations:
    """Connections of clients, and those to instances."""

    clients: int
    instances: int

    @property
    def running(self) -> int:
        """Connections of clients on which a request may still run: each needs one to an instance, too.

        Idle ones are no more after seconds: those to instances are closed, and clients that are answered are let go.
        """
        return min(self.clients, self.instances)


def conversations(one: Incarnation) -> Conversations:
    """Its connections now; it may have thousands, and takes as long as that does."""
    doors = {port for _, port in one.plan.places}
    others = {*doors, *(port for _, port in one.plan.all_places)}
    registry = {port for _, port in one.plan.registry}
    clients = instances = 0
    for local, remote in _connections(one.process.pid):
        if local in doors:
            clients += 1
        elif local not in others and remote not in registry:
            instances += 1
    return Conversations(clients, instances)


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
