"""The HTTP transport: uvicorn in the event loop of the node, with limits on everything that a peer can take."""

from adsum.servers.http.cross_origin import AllowedHosts
from adsum.servers.http.limits import HttpLimits, OnShed
from adsum.servers.http.server import HttpServer
from adsum.servers.http.sockets import ListenError, listen, socket_url
from adsum.servers.http.tls_connector import TLS_FAILED

__all__ = ["TLS_FAILED", "AllowedHosts", "HttpLimits", "HttpServer", "ListenError", "OnShed", "listen", "socket_url"]
