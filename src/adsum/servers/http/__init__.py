"""The HTTP transport: uvicorn in our own loop, with a bound on everything that a peer can make us hold."""

from adsum.servers.http.bounds import Bounds
from adsum.servers.http.browsers import Hosts
from adsum.servers.http.listening import ListenRefused, listen, url
from adsum.servers.http.server import HttpServer

__all__ = ["Bounds", "Hosts", "HttpServer", "ListenRefused", "listen", "url"]
