"""Starts the processes of the demo: the registry, the services and the gateway."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

from adsum.demo.processes import DemoProcess, ProcessGroup, clean_environment
from adsum.demo.service import CHECK
from adsum.envoy.process.binary import EnvoyNotFound, find_envoy
from adsum.run.port import claim_free_port

TTL: Final = "5s"
GRACE: Final = "5s"
"""TTL and grace are shorter than their defaults, so that the demo takes half a minute instead of more than one."""


class DemoCluster:
    """The processes of one demo, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._claims = ExitStack()
        self._port = self._free_port()
        self._xds = f"127.0.0.1:{self._free_port()}"
        self.url = f"http://127.0.0.1:{self._port}"
        self.gateway = ""
        """The URL of the gateway; "" if there is none."""
        self.processes = ProcessGroup(folder, clean_environment(self.url, folder))
        self.instances: dict[str, DemoProcess] = {}
        self._store = f"sqlite:///{folder / 'adsum.db'}"

    def start_registry(self) -> DemoProcess:
        """Start `adsum serve`, on the same port and with the same store each time."""
        addresses = ["--listen", f"127.0.0.1:{self._port}", "--xds", self._xds, "--store", self._store]
        return self.processes.start("registry", _adsum("serve", *addresses, "--node", "demo"))

    def start_gateway(self) -> bool:
        """Start `adsum gateway`; returns False if no Envoy is installed."""
        try:
            find_envoy()
        except EnvoyNotFound:
            return False
        address = f"127.0.0.1:{self._free_port()}"
        addresses = ["--listen", address, "--xds", self._xds, "--monitor", "off"]
        self.processes.start("gateway", _adsum("gateway", *addresses, "--access-log", "off", "--concurrency", "1"))
        self.gateway = f"http://{address}"
        return True

    def start_wrapped(self, service: str, id: str) -> None:
        """Start a program that does not use Adsum itself, wrapped by `adsum run`."""
        program = [sys.executable, "-m", "adsum.demo.service", service, "--id", id]
        lease = ["--ttl", TTL, "--grace", GRACE, "--check", CHECK]
        naming = ["--service", service, "--id", id, "--port", str(self._free_port())]
        self.instances[id] = self.processes.start(id, _adsum("run", *naming, *lease, "--", *program))

    def start_registering(self, service: str, id: str) -> None:
        """Start a program that registers itself through the client library."""
        argv = [sys.executable, "-m", "adsum.demo.service", service, "--id", id, "--register"]
        self.instances[id] = self.processes.start(id, argv, PORT=str(self._free_port()))

    async def close(self) -> None:
        """Stop all processes."""
        try:
            await self.processes.close()
        finally:
            self._claims.close()

    def _free_port(self) -> int:
        claim = claim_free_port(Random())
        self._claims.callback(claim.release)
        return claim.port


def _adsum(*args: str) -> list[str]:
    return [sys.executable, "-m", "adsum", *args]
