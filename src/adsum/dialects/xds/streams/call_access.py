"""Access control of gRPC calls: who a caller is, whether it may make the call, and when its rights end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from adsum.access.control import AccessControl
from adsum.access.credentials import Credentials, presented_token
from adsum.access.sessions import RIGHTS_CHANGED
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.addresses import split_host_port
from adsum.core.errors import AdsumError, StoreUnavailable, Unauthenticated
from adsum.dialects.xds.streams.errors import grpc_status
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from adsum.mounts import StreamCall
from adsum.registry import Registry

AUTHORIZATION: Final = "authorization"
"""The metadata with the token of the caller, as `Bearer TOKEN`."""

MAX_DELAYED_REFUSALS: Final = 1_000
"""Refusals of wrong credentials that are delayed at a time. Past it a refusal is sent at once, so that they can't take
the places of other calls."""

AdmittedMethod = Callable[[StreamCall, Principal], Awaitable[None]]
"""Serves a call of a caller who may make it."""


class CallAccess:
    """Lets calls in whose callers may make them, and ends calls within a second after the rights of a caller change."""

    def __init__(self, access: AccessControl, registry: Registry, refusals: RefusalLog) -> None:
        self._access = access
        self._registry = registry
        self._refusals = refusals
        self._delayed = 0
        """The refusals that are delayed now."""

    async def serve(self, operation: str, action: Action, method: AdmittedMethod, call: StreamCall) -> None:
        """Serves the call with `method` if the caller may do the action, else ends it with the reason.

        A call waits until the catalog is loaded, since the tokens are loaded with it. `operation` is the name of the
        call in metrics and logs.
        """
        credentials = call_credentials(call)
        try:
            await self._wait_until_loaded()
            principal = self._access.identify(credentials)
            self._access.require(principal, action)
        except AdsumError as error:
            self._access.record_refusal(operation, error, credentials)
            await self._slow_down(error, credentials.address)
            self._refusals.add("", call.peer, grpc_status(error), str(error))
            call.refuse(grpc_status(error), str(error))
            return
        admitted = AdmittedCall(call, self._refusals)
        with self._access.session(principal, admitted.end):
            await method(admitted, principal)

    async def _slow_down(self, error: AdsumError, address: str) -> None:
        if self._delayed < MAX_DELAYED_REFUSALS:
            self._delayed += 1
            try:
                await self._access.slow_down(error, address)
            finally:
                self._delayed -= 1

    async def _wait_until_loaded(self) -> None:
        """Returns when the catalog is loaded. Raises `StoreUnavailable` if the node stops, and `Overloaded`."""
        if self._registry.is_ready:
            return
        watches = self._registry.watches
        with watches.open(None) as watch:
            while not self._registry.is_ready:
                if watches.is_ended:
                    raise StoreUnavailable("the node is stopping")
                await watch.changed()


class AdmittedCall:
    """A call that ends when the rights of its caller change. From then on, nothing more is sent."""

    __slots__ = ("_call", "_has_ended", "_refusals")

    def __init__(self, call: StreamCall, refusals: RefusalLog) -> None:
        self._call = call
        self._refusals = refusals
        self._has_ended = False

    @property
    def peer(self) -> str:
        return self._call.peer

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._call.metadata

    @property
    def certificate(self) -> bytes:
        return self._call.certificate

    async def read(self) -> bytes | None:
        return await self._call.read()

    async def write(self, message: bytes) -> None:
        if self._has_ended:
            raise ConnectionError(RIGHTS_CHANGED)
        await self._call.write(message)

    def refuse(self, code: str, message: str) -> None:
        self._call.refuse(code, message)

    def cut(self, reason: str) -> None:
        self._call.cut(reason)

    def end(self) -> None:
        """Ends the call now, because the rights of its caller have changed."""
        self._has_ended = True
        code = grpc_status(Unauthenticated(RIGHTS_CHANGED, reason="revoked"))
        self._refusals.add("", self._call.peer, code, RIGHTS_CHANGED)
        self._call.refuse(code, RIGHTS_CHANGED)
        self._call.cut(RIGHTS_CHANGED)  # The call is ended with the first status.


def call_credentials(call: StreamCall) -> Credentials:
    """Returns the credentials of a call: its token, its client certificate, and the IP address of its peer."""
    authorization = call.metadata.get(AUTHORIZATION)
    token = presented_token([authorization] if authorization is not None else [])
    return Credentials(token, call.certificate, split_host_port(call.peer)[0])
