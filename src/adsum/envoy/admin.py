"""Envoy's admin interface, which only we can reach: a socket in a folder of our own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpcore

from adsum.core.errors import AdsumError
from adsum.envoy.metrics.stats import CERTIFICATE_EXPIRY, REGISTRY_BYTES_RECEIVED

ANSWER_TIMEOUT: Final = 5.0
"""Seconds that it has to answer; it is a thread of its own, and not the one that serves requests."""
MONITOR_LISTENER: Final = "monitor"
"""The name, in Envoy's figures, of the listener that tells the gateway's metrics."""
OWN_LISTENERS: Final = ("admin", MONITOR_LISTENER)
"""What is not traffic."""


class AdminUnavailable(AdsumError):
    """Envoy does not answer on its admin socket, or not as expected."""


@dataclass(frozen=True, slots=True)
class ActiveTraffic:
    """What its listeners have to do now."""

    requests: int
    connections: int


@dataclass(frozen=True, slots=True)
class ListenerStates:
    """Where it listens, as (IP, port), and what it could not do, in its own words."""

    listening: frozenset[tuple[str, int]]
    errors: tuple[str, ...]


class AdminClient:
    """Asks one Envoy. Every method raises `AdminUnavailable`."""

    def __init__(self, socket: Path) -> None:
        self.socket_path = socket

    async def is_live(self) -> bool:
        """Whether it has everything that it waited for and has begun to serve."""
        status, body = await self._ask("GET", "/ready")
        return status == 200 and body.strip() == b"LIVE"

    async def is_responsive(self) -> bool:
        """Whether it can be asked anything; raises nothing."""
        try:
            await self.is_live()
        except AdminUnavailable:
            return False
        return True

    async def listeners(self) -> ListenerStates:
        """Its listeners, and those that it refused or could not open."""
        statuses = (await self._json("/listeners?format=json")).get("listener_statuses", ())
        dumped = (await self._json("/config_dump?resource=dynamic_listeners")).get("configs", ())
        refused = [each["error_state"]["details"] for each in dumped if "error_state" in each]
        return ListenerStates(frozenset(_place(each["local_address"]) for each in statuses), tuple(refused))

    async def is_registry_connected(self) -> bool:
        """Whether a registry node talks to it."""
        return (await self._figures("^control_plane.connected_state$")).get("control_plane.connected_state", 0) == 1

    async def registry_bytes_received(self) -> int:
        """How many bytes came from registry nodes so far."""
        return (await self._figures(f"^{re.escape(REGISTRY_BYTES_RECEIVED)}$")).get(REGISTRY_BYTES_RECEIVED, 0)

    async def certificate_expiry(self) -> float:
        """When the first certificate that its listeners show expires, on the wall clock; 0 if they show none."""
        return min((await self._figures(rf"^listener\..*\.{re.escape(CERTIFICATE_EXPIRY)}$")).values(), default=0.0)

    async def active_traffic(self) -> ActiveTraffic:
        """The requests that run and the connections that are open."""
        running = {"downstream_rq_active": 0, "downstream_cx_active": 0}
        for name, value in (await self._figures(r"^http\..*\.downstream_(rq|cx)_active$")).items():
            listener, _, figure = name.removeprefix("http.").rpartition(".")
            if listener not in OWN_LISTENERS:
                running[figure] += value
        return ActiveTraffic(running["downstream_rq_active"], running["downstream_cx_active"])

    async def set_runtime(self, key: str, value: int) -> None:
        """Change a value that its routes depend on; a new Envoy begins without it."""
        await self._post(f"/runtime_modify?{key}={value}")

    async def drain_connections(self) -> None:
        """Answer `/readyz` with 503, and end every connection with the answer to its next request."""
        await self._post("/healthcheck/fail")
        await self._post("/drain_listeners?graceful&skip_exit")

    async def stop_accepting(self) -> None:
        """Close the listening sockets; what is connected goes on."""
        await self._post("/drain_listeners")

    async def config_dump(self) -> Mapping[str, Any]:
        """Everything that it was told, with the endpoints."""
        return await self._json("/config_dump?include_eds")

    async def _figures(self, pattern: str) -> dict[str, int]:
        stats = (await self._json(f"/stats?format=json&filter={pattern}")).get("stats", ())
        return {each["name"]: each["value"] for each in stats if "value" in each}

    async def _json(self, path: str) -> Mapping[str, Any]:
        status, body = await self._ask("GET", path)
        if status == 404:  # There is nothing of what was asked for.
            return {}
        try:
            said: Mapping[str, Any] = json.loads(body)
        except ValueError:
            raise AdminUnavailable(f"Envoy answered {path} with {status} and {body[:100]!r}") from None
        return said

    async def _post(self, path: str) -> None:
        status, body = await self._ask("POST", path)
        if status != 200:
            raise AdminUnavailable(f"Envoy answered {path} with {status} and {body[:100]!r}")

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        timeout = {"connect": ANSWER_TIMEOUT, "read": ANSWER_TIMEOUT, "write": ANSWER_TIMEOUT, "pool": ANSWER_TIMEOUT}
        try:
            async with httpcore.AsyncConnectionPool(uds=str(self.socket_path)) as pool:
                answer = await pool.request(method, f"http://envoy{path}", extensions={"timeout": timeout})
        except (OSError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise AdminUnavailable(f"Envoy does not answer: {error or type(error).__name__}") from None
        return answer.status, answer.content


def _place(address: Mapping[str, Any]) -> tuple[str, int]:
    socket = address.get("socket_address", {})
    return socket.get("address", ""), socket.get("port_value", 0)
