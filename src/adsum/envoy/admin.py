"""A client of Envoy's admin interface, which listens on a Unix socket in the gateway's private folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpcore

from adsum.core.errors import AdsumError
from adsum.envoy.metrics.stats import REGISTRY_BYTES_RECEIVED

ANSWER_TIMEOUT: Final = 5.0
"""Seconds that the admin interface has to answer. It runs in a thread of its own, which serves no requests."""
MONITOR_LISTENER: Final = "monitor"
"""The name of the monitor's listener in Envoy's stats."""
OWN_LISTENERS: Final = ("admin", MONITOR_LISTENER)
"""Listeners whose requests are not traffic."""


class AdminUnavailable(AdsumError):
    """Envoy does not answer on its admin socket, or answers with something unexpected."""


@dataclass(frozen=True, slots=True)
class ActiveTraffic:
    """Requests in progress and open connections of the listeners, without the monitor's."""

    requests: int
    connections: int


@dataclass(frozen=True, slots=True)
class ListenerStates:
    """The addresses (IP, port) at which Envoy listens, and its errors for listeners that it refused or can't open."""

    listening: frozenset[tuple[str, int]]
    errors: tuple[str, ...]


class AdminClient:
    """Requests to the admin interface of one Envoy. Every method raises `AdminUnavailable` unless it says otherwise."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    async def is_live(self) -> bool:
        """Returns whether Envoy has received its whole configuration and serves."""
        status, body = await self._request("GET", "/ready")
        return status == 200 and body.strip() == b"LIVE"

    async def is_responsive(self) -> bool:
        """Returns whether the admin interface answers. Raises nothing."""
        try:
            await self.is_live()
        except AdminUnavailable:
            return False
        return True

    async def listeners(self) -> ListenerStates:
        """Returns where Envoy listens, and the errors of listeners that it refused or could not open."""
        statuses = (await self._json("/listeners?format=json")).get("listener_statuses", ())
        configs = (await self._json("/config_dump?resource=dynamic_listeners")).get("configs", ())
        errors = [config["error_state"]["details"] for config in configs if "error_state" in config]
        return ListenerStates(frozenset(_address(status["local_address"]) for status in statuses), tuple(errors))

    async def is_registry_connected(self) -> bool:
        """Returns whether Envoy has a stream to a registry node."""
        return (await self._stats("^control_plane.connected_state$")).get("control_plane.connected_state", 0) == 1

    async def registry_bytes_received(self) -> int:
        """Returns how many bytes came from registry nodes so far."""
        return (await self._stats(f"^{re.escape(REGISTRY_BYTES_RECEIVED)}$")).get(REGISTRY_BYTES_RECEIVED, 0)

    async def active_traffic(self) -> ActiveTraffic:
        """Returns the requests in progress and the open connections."""
        active = {"downstream_rq_active": 0, "downstream_cx_active": 0}
        for name, value in (await self._stats(r"^http\..*\.downstream_(rq|cx)_active$")).items():
            listener, _, kind = name.removeprefix("http.").rpartition(".")
            if listener not in OWN_LISTENERS:
                active[kind] += value
        return ActiveTraffic(active["downstream_rq_active"], active["downstream_cx_active"])

    async def set_runtime(self, key: str, value: int) -> None:
        """Sets a runtime value that routes depend on. A new Envoy starts without it."""
        await self._post(f"/runtime_modify?{key}={value}")

    async def drain_connections(self) -> None:
        """Makes /readyz answer 503 and closes every connection with the response to its next request."""
        await self._post("/healthcheck/fail")
        await self._post("/drain_listeners?graceful&skip_exit")

    async def stop_accepting(self) -> None:
        """Closes the listening sockets. Open connections continue."""
        await self._post("/drain_listeners")

    async def config_dump(self) -> Mapping[str, Any]:
        """Returns the whole configuration that Envoy has, with the endpoints."""
        return await self._json("/config_dump?include_eds")

    async def _stats(self, pattern: str) -> dict[str, int]:
        stats = (await self._json(f"/stats?format=json&filter={pattern}")).get("stats", ())
        return {stat["name"]: stat["value"] for stat in stats if "value" in stat}

    async def _json(self, path: str) -> Mapping[str, Any]:
        status, body = await self._request("GET", path)
        if status == 404:  # Envoy has no such resource.
            return {}
        try:
            content: Mapping[str, Any] = json.loads(body)
        except ValueError:
            raise AdminUnavailable(f"Envoy answered {path} with {status} and {body[:100]!r}") from None
        return content

    async def _post(self, path: str) -> None:
        status, body = await self._request("POST", path)
        if status != 200:
            raise AdminUnavailable(f"Envoy answered {path} with {status} and {body[:100]!r}")

    async def _request(self, method: str, path: str) -> tuple[int, bytes]:
        timeout = {"connect": ANSWER_TIMEOUT, "read": ANSWER_TIMEOUT, "write": ANSWER_TIMEOUT, "pool": ANSWER_TIMEOUT}
        try:
            async with httpcore.AsyncConnectionPool(uds=str(self.socket_path)) as pool:
                response = await pool.request(method, f"http://envoy{path}", extensions={"timeout": timeout})
        except (OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise AdminUnavailable(f"Envoy does not answer: {error or type(error).__name__}") from None
        return response.status, response.content


def _address(address: Mapping[str, Any]) -> tuple[str, int]:
    socket = address.get("socket_address", {})
    return socket.get("address", ""), socket.get("port_value", 0)
