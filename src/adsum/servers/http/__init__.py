"""The HTTP transport: uvicorn in our own loop, with a bound on everything that a peer can make us hold."""

from adsum.servers.http.cross_origin import Hosts
from adsum.servers.http.limits import Bounds
from adsum.servers.http.server import HttpServer
from adsum.servers.http.sockets import ListenRefused, listen, url

__all__ = ["Bounds", "Hosts", "HttpServer", "ListenRefused", "listen", "url"]
