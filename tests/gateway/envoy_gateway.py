"""A gateway on a real Envoy in front of echo services, for tests that send requests to it."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import FullState
from adsum.core.model import Listing
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.upstreams import Upstream
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from tests.gateway.real_envoy import ENVOY_TIMEOUT, free_port, running_envoy


class GatewayAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    content: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.content["id"])


class EnvoyGateway:
    """A client of a running gateway that sends its requests on one connection."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(address, timeout=ENVOY_TIMEOUT)

    def get(self, path: str, **headers: str) -> GatewayAnswer:
        return self._get(self._connection, path, headers)

    def get_on_new_connection(self, path: str) -> GatewayAnswer:
        """Sends the request on a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=ENVOY_TIMEOUT)
        try:
            return self._get(connection, path, {})
        finally:
            connection.close()

    def ids(self, path: str, count: int) -> Counter[str]:
        """Returns the ids of the instances that answered `count` requests."""
        return Counter(self.get(path).id for _ in range(count))

    @staticmethod
    def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> GatewayAnswer:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = json.loads(response.read())
        return GatewayAnswer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def running_gateway(folder: Path, listings: Sequence[Listing], *intent: Route | Upstream) -> Iterator[EnvoyGateway]:
    routes = tuple(item for item in intent if isinstance(item, Route))
    upstreams = {item.service: item for item in intent if isinstance(item, Upstream)}
    snapshot = snapshots.load_snapshot(FullState("e", 1, [(1, item) for item in listings]))
    profile = GatewayProfile((f"127.0.0.1:{free_port()}",), access_log="off")
    with running_envoy(NO_RESOURCES.advance(snapshot, Intent(routes, upstreams), {}), profile, folder):
        gateway = EnvoyGateway(profile.listen[0])
        yield gateway
        gateway.close()
