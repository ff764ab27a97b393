"""The status of the node, its probes, its metrics, and the documentation of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.dialects.native.api.docs_page import docs_page
from adsum.dialects.native.api.openapi import openapi_document
from adsum.dialects.native.asgi import JSON, NO_STORE, ApiReply
from adsum.dialects.native.problems import NotReady
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.registry import Registry

_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_METRICS: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_HTML: Final = (b"content-type", b"text/html; charset=utf-8")
_POLICY: Final = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")
_NO_CACHE: Final = (b"cache-control", b"no-cache")


class NodeOperations:
    """The operations about the node itself."""

    def __init__(
        self, registry: Registry, status: Callable[[], wire.NodeStatus], exposition: Callable[[], bytes]
    ) -> None:
        """`exposition` returns the metrics in the text format of Prometheus."""
        self._registry = registry
        self._status = status
        self._exposition = exposition
        self._document = openapi_document()
        self._page = docs_page(self._document)

    async def read_status(self, _: ApiRequest) -> ApiReply:
        return ApiReply(200, wire.encode(self._status()))

    async def metrics(self, _: ApiRequest) -> ApiReply:
        return ApiReply(200, self._exposition(), (_METRICS, NO_STORE))

    async def healthz(self, _: ApiRequest) -> ApiReply:
        return ApiReply(200, b"ok\n", (_TEXT, NO_STORE))

    async def readyz(self, _: ApiRequest) -> ApiReply:
        reason = self._registry.unready_reason()
        if reason:
            raise NotReady(reason)
        return ApiReply(200, b"ready\n", (_TEXT, NO_STORE))

    async def openapi(self, _: ApiRequest) -> ApiReply:
        return ApiReply(200, wire.encode(self._document), (JSON, _NO_CACHE))

    async def docs(self, _: ApiRequest) -> ApiReply:
        return ApiReply(200, self._page, (_HTML, _POLICY, _NO_CACHE))

    async def home(self, _: ApiRequest) -> ApiReply:
        return ApiReply(307, b"", ((b"location", b"/docs"), NO_STORE))
