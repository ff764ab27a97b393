"""The listeners of a node: its HTTP server, and the further listeners that dialects mount."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from adsum.config.serve import NodeConfig
from adsum.core.errors import AdsumError
from adsum.dialects.dialect import Dialect
from adsum.file_descriptors import ConnectionLimits, connection_limits
from adsum.mounts import GrpcListener, HttpListener, HttpPath, Listener, TcpListener, UdpListener
from adsum.ports import ServerCertificates
from adsum.servers import http
from adsum.servers.http.path_router import PathRouter

if TYPE_CHECKING:
    import socket

_log = logging.getLogger("adsum.listeners")


class _Server(Protocol):
    async def start(self, address: str) -> str: ...

    async def stop(self) -> None: ...


class Listeners:
    """The HTTP server and the further listeners of a node, with limits that fit into its file descriptors."""

    def __init__(
        self,
        config: NodeConfig,
        dialects: Mapping[str, Dialect],
        descriptor_limit: int,
        on_shed: http.OnShed,
        certificates: ServerCertificates | None = None,
    ) -> None:
        """With `certificates` the HTTP and gRPC servers speak TLS."""
        mounts = [(name, mount) for name, dialect in dialects.items() for mount in dialect.mounts()]
        self._paths = [mount for _, mount in mounts if isinstance(mount, HttpPath)]
        self._listeners = [(name, mount) for name, mount in mounts if not isinstance(mount, HttpPath)]
        self._descriptor_limit = descriptor_limit
        self._on_shed = on_shed
        self._certificates = certificates
        self._wanted_by_dialects = sum(_max_connections(listener) for _, listener in self._listeners)
        self._config = config
        self._limits = self._connection_limits()
        self._sockets: list[socket.socket] = []
        self._servers: list[_Server] = []
        self._http: http.HttpServer | None = None
        self.urls: list[str] = []
        """The URLs of the HTTP server, once bound."""
        self.addresses: dict[str, list[str]] = {}
        """The addresses, HOST:PORT, of the listeners of each dialect, by its name, once open."""

    @property
    def http_server(self) -> http.HttpServer:
        """The node's HTTP server. Raises `RuntimeError` before `start`."""
        if self._http is None:
            raise RuntimeError("the HTTP server is not open yet")
        return self._http

    def bind(self) -> None:
        """Binds the address of the HTTP server without accepting connections. Raises `ListenError`."""
        self._sockets = http.listen(self._config.listen)
        has_tls = self._certificates is not None
        self.urls = [http.socket_url(listening, has_tls=has_tls) for listening in self._sockets]

    async def start(self) -> None:
        """Accepts connections, on the HTTP server first. Raises `AdsumError` if an address can't be used."""
        router = PathRouter(self._paths)
        hosts = http.AllowedHosts.for_sockets(self._config.listen, self._sockets, self._config.host_name)
        limits = http.HttpLimits(self._limits.http)
        self._http = http.HttpServer(
            router.app, self._sockets, limits, router.fast_path, hosts, self._on_shed, self._certificates
        )
        self._sockets = []  # The server closes them from now on.
        await self._http.start()
        for name, listener in self._listeners:
            server = self._server(listener)
            self._servers.append(server)  # Before it starts, so that `stop` also closes a server that failed to start.
            try:
                address = await server.start(listener.address)
            except AdsumError as error:
                raise AdsumError(f"{error}; {listener.remedy}") from None
            self.addresses.setdefault(name, []).append(address)

    async def stop(self) -> None:
        """Stops listening. Answers in progress may finish within the time of each server; idempotent."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.stop()
        if self._http is not None:
            await self._http.stop()
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            listening.close()

    def reconfigure(self, config: NodeConfig) -> None:
        """Applies another `max_connections` to the HTTP server; open connections stay."""
        self._config = config
        self._limits = self._connection_limits()
        if self._http is not None:
            self._http.set_max_connections(self._limits.http)
        self.log_limits()

    def log_limits(self) -> None:
        """Logs the limits of connections, and a remedy if file descriptors allow fewer than configured."""
        wanted, limits = self._config.max_connections, self._limits
        _log.info("up to %d HTTP connections, and %d of other listeners, at a time", limits.http, limits.grpc)
        if limits.http < wanted:
            _log.warning(
                "the limit of open files is %d, which allows %d connections at a time instead of %d: raise it "
                "(LimitNOFILE= of systemd, --ulimit nofile= of docker, ulimit -n)",
                *(self._descriptor_limit, limits.http, wanted),
            )

    def _connection_limits(self) -> ConnectionLimits:
        return connection_limits(
            self._descriptor_limit,
            http=self._config.max_connections,
            grpc=self._wanted_by_dialects,
            probes=self._config.probes,
        )

    def _server(self, listener: Listener) -> _Server:
        share = max(1, self._limits.grpc * _max_connections(listener) // max(1, self._wanted_by_dialects))
        if isinstance(listener, GrpcListener):
            from adsum.servers.grpc import GrpcServer

            listener.set_connection_limit(share)
            methods, size = listener.methods, listener.max_message_bytes
            return GrpcServer(methods, size, share, self._certificates, self._on_failed_handshakes)
        if isinstance(listener, TcpListener):
            from adsum.servers.tcp import TcpServer

            return TcpServer(listener.serve, share)
        if isinstance(listener, UdpListener):
            from adsum.servers.udp import UdpServer

            return UdpServer(listener.protocol)
        return _HttpListenerServer(listener, share, self._config.host_name, self._on_shed, self._certificates)

    def _on_failed_handshakes(self, count: int) -> None:
        for _ in range(count):
            self._on_shed(http.TLS_FAILED)


class _HttpListenerServer:
    """The server of an `HttpListener`, with the same rules for host names as the node's HTTP server."""

    def __init__(
        self,
        listener: HttpListener,
        connections: int,
        host_names: tuple[str, ...],
        on_shed: http.OnShed,
        certificates: ServerCertificates | None,
    ) -> None:
        self._listener = listener
        self._connections = connections
        self._host_names = host_names
        self._on_shed = on_shed
        self._certificates = certificates
        self._server: http.HttpServer | None = None

    async def start(self, address: str) -> str:
        sockets = http.listen(address)
        self._server = http.HttpServer(
            self._listener.app,
            sockets,
            http.HttpLimits(self._connections),
            self._listener.fast_path,
            http.AllowedHosts.for_sockets(address, sockets, self._host_names),
            self._on_shed,
            self._certificates,
        )
        await self._server.start()
        return http.socket_url(sockets[0]).partition("://")[2]

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()


def _max_connections(listener: Listener) -> int:
    return 0 if isinstance(listener, UdpListener) else listener.max_connections
