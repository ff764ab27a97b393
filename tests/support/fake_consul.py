"""A fake Consul agent in memory, behind a real socket. It does only what Consul's documentation promises to clients.

It has services, TTL checks that expire, an index for each service, and blocking queries. It can be stopped, restored,
protected by a token, or answer as an old version.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

DURATION = re.compile(r"([0-9.]+)(ms|s|m)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def seconds(text: str) -> float:
    return sum(float(amount) * SECONDS[unit] for amount, unit in DURATION.findall(text))


@dataclass
class FakeConsulCheck:
    """One check of one service."""

    id: str
    status: str = "critical"
    notes: str = ""
    ttl: float | None = None
    until: float = 0.0


@dataclass
class FakeConsulService:
    """A service with the body that registered it."""

    body: Mapping[str, Any]
    checks: dict[str, FakeConsulCheck] = field(default_factory=dict)


class FakeConsulAgent:
    """An agent on a port of its own, which stays the same when it is stopped and started again."""

    def __init__(self, token: str = "", *, old: bool = False) -> None:
        """`old`: it answers as versions before 1.12 do."""
        self.port = 0
        self.index = 10
        self.services: dict[str, FakeConsulService] = {}
        self.queries: list[dict[str, str]] = []
        """The parameters of each query for a service."""
        self.refused = 0
        self._token = token
        self._old = old
        self._indexes: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"consul://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(middlewares=[self._check_token])
        app.router.add_put("/v1/agent/service/register", self._register)
        app.router.add_put("/v1/agent/service/deregister/{id}", self._deregister)
        app.router.add_put("/v1/agent/service/maintenance/{id}", self._maintain)
        app.router.add_put("/v1/agent/check/pass/{id}", self._pass)
        app.router.add_get("/v1/agent/service/{id}", self._service)
        app.router.add_get("/v1/agent/self", self._self)
        app.router.add_get("/v1/agent/checks", self._checks)
        app.router.add_get("/v1/health/service/{name}", self._health)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._tasks = [asyncio.create_task(self._expire_checks())]

    async def stop(self) -> None:
        """Stops serving. Registrations stay, as on an agent's disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    async def restore(self, index: int) -> None:
        """Loses all registrations and continues from `index`."""
        self.services.clear()
        self._indexes.clear()
        self.index = index
        await self._notify()

    async def add_service(self, name: str, id: str, port: int, **fields: Any) -> None:
        """Registers a service as another program would, without a check."""
        self.services[id] = FakeConsulService({"ID": id, "Name": name, "Port": port, **fields})
        await self._bump(name)

    async def _bump(self, name: str) -> None:
        self.index += 1
        self._indexes[name] = self.index
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _expire_checks(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for listed in list(self.services.values()):
                for check in listed.checks.values():
                    if check.ttl is not None and check.status != "critical" and loop.time() > check.until:
                        check.status = "critical"
                        await self._bump(listed.body["Name"])
            await asyncio.sleep(0.02)

    @web.middleware
    async def _check_token(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self._token and request.headers.get("X-Consul-Token") != self._token:
            self.refused += 1
            return web.Response(status=403, text="Permission denied: token lacks permission")
        response: web.StreamResponse = await handler(request)
        return response

    async def _register(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not body.get("Name"):
            return web.Response(status=400, text="Missing service name")
        now = asyncio.get_running_loop().time()
        checks = {}
        for check in body.get("Checks") or []:
            ttl = seconds(check["TTL"]) if "TTL" in check else None
            status = check.get("Status", "critical")
            checks[check["CheckID"]] = FakeConsulCheck(check["CheckID"], status, ttl=ttl, until=now + (ttl or 0.0))
        before = self.services.get(body["ID"])
        if before is not None and "replace-existing-checks" not in request.query:
            checks = {**before.checks, **checks}
        self.services[body["ID"]] = FakeConsulService(body, checks)
        await self._bump(body["Name"])
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        removed = self.services.pop(request.match_info["id"], None)
        if removed is None:
            return web.Response(status=404, text="Unknown service ID")
        await self._bump(removed.body["Name"])
        return web.Response()

    async def _maintain(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        listed = self.services.get(id)
        if listed is None:
            return web.Response(status=404, text="Unknown service ID")
        check = f"_service_maintenance:{id}"
        if request.query["enable"] == "true":
            listed.checks[check] = FakeConsulCheck(check, notes=request.query.get("reason", ""))
        else:
            listed.checks.pop(check, None)
        await self._bump(listed.body["Name"])
        return web.Response()

    async def _pass(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        for listed in self.services.values():
            if id in listed.checks:
                check = listed.checks[id]
                check.until = asyncio.get_running_loop().time() + (check.ttl or 0.0)
                if check.status != "passing":
                    check.status = "passing"
                    await self._bump(listed.body["Name"])
                return web.Response()
        if self._old:
            return web.Response(status=500, text=f'CheckID "{id}" does not have associated TTL')
        return web.Response(status=404, text=f'Unknown check ID "{id}". Ensure that the check ID is passed')

    async def _service(self, request: web.Request) -> web.Response:
        listed = self.services.get(request.match_info["id"])
        if listed is None:
            return web.Response(status=404, text="unknown service ID")
        return web.json_response(
            {**_service_body(listed), "ContentHash": "abc"}, headers={"X-Consul-ContentHash": "abc"}
        )

    async def _self(self, _: web.Request) -> web.Response:
        return web.json_response({"Config": {"NodeName": "n1"}, "Member": {"Name": "n1", "Addr": "127.0.0.9"}})

    async def _checks(self, _: web.Request) -> web.Response:
        checks = [check for listed in self.services.values() for check in listed.checks.values()]
        return web.json_response({check.id: {"CheckID": check.id, "Status": check.status} for check in checks})

    async def _health(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.queries.append(dict(request.query))
        if index := int(request.query.get("index", 0)):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds(request.query["wait"])), self._changed:
                    await self._changed.wait_for(lambda: self._index_of(name) != index)
        node = {
            "ID": "4f",
            "Node": "n1",
            "Address": "10.9.8.7",
            "Datacenter": "dc1",
            "TaggedAddresses": None,
            "Meta": None,
        }
        serf = {"Node": "n1", "CheckID": "serfHealth", "Status": "passing", "Notes": "", "ServiceID": ""}
        entries = [
            {
                "Node": node,
                "Service": _service_body(listed),
                "Checks": [
                    serf,
                    *(
                        {"CheckID": check.id, "Status": check.status, "Notes": check.notes}
                        for check in listed.checks.values()
                    ),
                ],
            }
            for listed in self.services.values()
            if listed.body["Name"] == name
        ]
        headers = {
            "X-Consul-Index": str(self._index_of(name)),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
        }
        return web.json_response(entries, headers=headers)

    def _index_of(self, name: str) -> int:
        return self._indexes.get(name, self.index)


def _service_body(listed: FakeConsulService) -> dict[str, Any]:
    body = listed.body
    return {
        "ID": body["ID"],
        "Service": body["Name"],
        "Tags": body.get("Tags") or [],
        "Address": body.get("Address", ""),
        "Meta": body.get("Meta"),
        "Port": body["Port"],
        "Weights": body.get("Weights", {"Passing": 1, "Warning": 1}),
        "EnableTagOverride": False,
        "CreateIndex": 11,
        "ModifyIndex": 11,
    }
