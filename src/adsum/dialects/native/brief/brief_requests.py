"""The fast path of the native API: reads of a service, renewals and registrations, without an ASGI task.

It answers good cases only. Every error goes to the application, which gets the same request and counts the refusal.
Errors of a decision are the exception: they are known only when the request has waited for the store.
"""

from __future__ import annotations

import re
from typing import Any, Final

from adsum.access.control import AccessControl
from adsum.core.model import Key
from adsum.dialects.native.api.operation import BASE
from adsum.dialects.native.asgi import Headers
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders, prepare_headers
from adsum.dialects.native.brief.registrations import BriefRegistrations
from adsum.dialects.native.brief.renewals import BriefRenewals
from adsum.dialects.native.brief.service_reads import ServiceReads
from adsum.mounts import Reply
from adsum.ports import Clock, Observer

_INSTANCE: Final = rf"{BASE}/services/([^/?%]+)/instances/([^/?%]+)"
_REGISTER: Final = re.compile(_INSTANCE)
_RENEW: Final = re.compile(_INSTANCE + r"/renew(?:\?holder=([^%+&;=?]*))?")
"""Targets whose parts stand for themselves. The router reads those with escapes."""
_RENEW_MANY: Final = f"{BASE}/renew".encode()


class BriefRequests:
    """Implements `adsum.mounts.FastPath`."""

    def __init__(
        self,
        reads: ServiceReads,
        renewals: BriefRenewals,
        registrations: BriefRegistrations,
        access: AccessControl,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._reads = reads
        self._renewals = renewals
        self._registrations = registrations
        self._access = access
        self._observer = observer
        self._clock = clock

    def prepare(self, headers: Headers, certificate: bytes) -> PreparedHeaders:
        """Implements `FastPath.prepare`."""
        return prepare_headers(self._access, headers, certificate)

    def answer(self, method: bytes, target: bytes, prepared: Any, body: bytes, peer: str, reply: Reply) -> bool:
        """Implements `FastPath.answer`."""
        began = self._clock.now()
        if method == b"GET":
            return not body and self._read(target, prepared, began, reply)
        if method == b"POST":
            if target == _RENEW_MANY:
                return self._respond("renew_many", self._renewals.renew_many(body, prepared), began, reply)
            return not body and self._renew(target.decode("ascii"), prepared, began, reply)
        if method == b"PUT":
            return self._register(target.decode("ascii"), prepared, body, peer, began, reply)
        return False

    def _read(self, target: bytes, headers: PreparedHeaders, began: float, reply: Reply) -> bool:
        response = self._reads.reply(target, headers)
        if response is None:
            return False
        self._observer.answered("read_service", response.status, self._clock.now() - began)
        reply(response.status, response.text)
        return True

    def _renew(self, target: str, headers: PreparedHeaders, began: float, reply: Reply) -> bool:
        found = _RENEW.fullmatch(target)
        if found is None:
            return False
        service, id, holder = found.groups("")
        return self._respond("renew", self._renewals.renew(Key(service, id), holder, headers), began, reply)

    def _register(
        self, target: str, headers: PreparedHeaders, body: bytes, peer: str, began: float, reply: Reply
    ) -> bool:
        found = _REGISTER.fullmatch(target)
        if found is None:
            return False
        return self._registrations.register(found[1], found[2], headers, body, peer, began, reply)

    def _respond(self, operation: str, encoded: bytes | None, began: float, reply: Reply) -> bool:
        """Sends a response with the status 200, if there is one."""
        if encoded is None:
            return False
        self._observer.answered(operation, 200, self._clock.now() - began)
        reply(200, encoded)
        return True
