"""Two secure nodes over one etcd in this process. The first one has the key of the authority, the second one joined."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx

from adsum.client.native.join import JoinedHost, join_registry
from adsum.config.serve import ServeConfig
from adsum.core.access.join_line import parse_join_line
from adsum.daemon import Daemon
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.node_security.joined_node import write_joined_node
from adsum.node_security.security_folder import SecurityFolder


class SecureNodes:
    """Starts the nodes, and sends requests to them as anyone."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder
        self._store = store

    def security(self, name: str) -> Path:
        """Returns the security folder of a node."""
        return self._folder / name / "security"

    def config(self, name: str, **settings: Any) -> ServeConfig:
        """Returns the settings of a node."""
        fixed: dict[str, Any] = {"listen": "127.0.0.1:0", "xds": "off", "store": self._store, "node": name}
        return ServeConfig(**{**fixed, "secure": True, "data": str(self._folder / name), **settings})

    @asynccontextmanager
    async def serving(self, name: str, **settings: Any) -> AsyncIterator[Daemon]:
        """A node that runs."""
        node = Daemon(self.config(name, **settings))
        await node.start()
        try:
            yield node
        finally:
            await node.stop()

    async def node_id(self, name: str) -> str:
        """Returns the id of the present run of a node, as etcd has it."""
        client = EtcdClient(EtcdAddress.parse(self._store), Random(1))
        try:
            found = (await client.read_all(b"/")).key_values
        finally:
            await client.close()
        nodes = {json.loads(one.value)["name"]: one.key for one in found if b"/cluster/nodes/" in one.key}
        return nodes[name].rpartition(b"/")[2].decode()

    @property
    def admin(self) -> str:
        """The admin token of the first node."""
        return (self.security("n1") / "admin-token").read_text().strip()

    def http(self, node: Daemon, token: str = "", certificate: str = "", **headers: str) -> httpx.AsyncClient:
        """A client of a node, with a token, or with the certificate of a node of this name."""
        context = ssl.create_default_context(cafile=str(self.security("n1") / "authority.pem"))
        if certificate:
            folder = self.security(certificate)
            context.load_cert_chain(folder / "node.pem", folder / "node.key")
        all_headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}
        url = f"{node.urls[0]}/api/v1"
        return httpx.AsyncClient(base_url=url, verify=context, trust_env=False, headers=all_headers, timeout=20.0)

    async def create_token(self, node: Daemon, name: str, *scopes: str) -> str:
        """Returns a new token."""
        async with self.http(node, self.admin) as http:
            answer = await http.post("/tokens", json={"name": name, "scopes": list(scopes)})
            assert answer.status_code == 201, answer.text
            token: str = answer.json()["token"]
            return token

    async def invite(self, node: Daemon, role: str) -> str:
        """Returns a join line."""
        async with self.http(node, self.admin) as http:
            answer = await http.post("/invites", json={"role": role})
            assert answer.status_code == 201, answer.text
            line: str = answer.json()["line"]
            return line

    async def join(self, node: Daemon, role: str, name: str) -> JoinedHost:
        """Joins by a node."""
        return await join_registry(parse_join_line(await self.invite(node, role)), name, Random(1))

    async def join_node(self, node: Daemon, name: str) -> JoinedHost:
        """Joins a further node."""
        joined = await self.join(node, "node", name)
        folder = SecurityFolder(self._folder / name)
        folder.create()
        credentials = joined.credentials
        write_joined_node(folder, credentials.authority, joined.certificate, joined.key, credentials.token)
        return joined
