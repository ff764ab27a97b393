"""A watcher without the library: it reads Server-Sent Events, applies them, resumes, and checks their guarantees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx

from tests.scenarios.processes import SCENARIO_TIMEOUT

State = dict[str, dict[str, Any]]
"""A service's instances, by id."""


class SseWatcher:
    """A watcher of services (none: all) that reconnects. It fails when its view would go backwards."""

    def __init__(self, url: str, services: Sequence[str] = ()) -> None:
        self.services: dict[str, State] = {}
        self.revisions: dict[str, int] = {}
        """The revision of each service's last change."""
        self.statuses_seen: dict[str, set[str]] = {}
        """All statuses that were ever received, by SERVICE/ID."""
        self.epochs: list[str] = []
        self.revision = 0
        self.connections = 0
        self.full_snapshots = 0
        self.on_synced: Callable[[], None] = lambda: None
        """Called at the end of each group of events."""
        self._url = url
        self._services = services
        self._position = ""

    async def follow(self) -> None:
        """Follows the services until cancelled. Fails if a guarantee is broken."""
        async with httpx.AsyncClient(timeout=SCENARIO_TIMEOUT, trust_env=False) as http:
            while True:
                with suppress(httpx.TransportError):
                    await self._connection(http)
                await asyncio.sleep(0.02)

    async def _connection(self, http: httpx.AsyncClient) -> None:
        params = {"service": list(self._services)}
        headers = {"last-event-id": self._position} if self._position else {}
        async with http.stream("GET", f"{self._url}/api/v1/watch", params=params, headers=headers) as answer:
            assert answer.status_code in (200, 503), answer.status_code
            self.connections += 1
            event: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif event:
                    self._apply(event)
                    event = {}

    def _apply(self, event: dict[str, str]) -> None:
        fields: dict[str, Any] = json.loads(event.get("data", "{}"))
        match event.get("event"):
            case "open":
                self._open(fields)
            case "service":
                self._replace(fields)
            case "change":
                self._change(fields)
            case "synced":
                assert fields["revision"] >= self.revision, f"{fields} after {self.revision}"
                self.revision, self._position = fields["revision"], event["id"]
                self.on_synced()

    def _open(self, fields: dict[str, Any]) -> None:
        if not self.epochs or self.epochs[-1] != fields["epoch"]:
            self.epochs.append(fields["epoch"])
            self.revision = 0
        assert fields["revision"] >= self.revision, f"{fields} after {self.revision}"
        if fields.get("full"):
            self.full_snapshots += 1
            self.services.clear()

    def _replace(self, fields: dict[str, Any]) -> None:
        name = fields["service"]
        self._record_revision(name, fields["revision"])
        self.services[name] = {}
        self._list(name, fields["instances"])

    def _change(self, fields: dict[str, Any]) -> None:
        name = fields["service"]
        assert fields["since"] <= self.revision, f"{fields['since']} does not continue {self.revision}"
        self._record_revision(name, fields["revision"])
        self._list(name, fields.get("changed", []))
        for gone in fields.get("removed", []):
            assert gone["cause"], gone
            assert gone["actor"], gone
            self.services[name].pop(gone["id"], None)

    def _record_revision(self, name: str, revision: int) -> None:
        assert revision >= self.revisions.get(name, 0) or len(self.epochs) > 1, f"{name} went back to {revision}"
        self.revisions[name] = revision

    def _list(self, name: str, instances: list[dict[str, Any]]) -> None:
        service = self.services.setdefault(name, {})
        for instance in instances:
            service[instance["id"]] = instance
            self.statuses_seen.setdefault(f"{name}/{instance['id']}", set()).add(instance["status"])
