"""The fast path of the native API: reads of a service, renewals, registrations and acknowledgements, without a task.

It answers good cases only. Every error goes to the application, which gets the same request and counts the refusal.
Errors that are known only when a request has waited are the exception: those of a decision, and of another node.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from adsum.access.control import AccessControl
from adsum.core.errors import AdsumError
from adsum.core.model import Key
from adsum.dialects.native.api.operation import BASE
from adsum.dialects.native.asgi import Headers
from adsum.dialects.native.brief.acknowledgements import ACKNOWLEDGED, BriefAcknowledgements
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders, prepare_headers
from adsum.dialects.native.brief.registrations import BriefRegistrations
from adsum.dialects.native.brief.renewals import BriefRenewals
from adsum.dialects.native.brief.service_reads import ServiceReads
from adsum.dialects.native.problems import problem_reply
from adsum.mounts import Reply
from adsum.ports import Clock, Observer

_INSTANCE: Final = rf"{BASE}/services/([^/?%]+)/instances/([^/?%]+)"
_REGISTER: Final = re.compile(_INSTANCE)
_RENEW: Final = re.compile(_INSTANCE + r"/renew(?:\?holder=([^%+&;=?]*))?")
_ACKNOWLEDGE: Final = re.compile(rf"{BASE}/watches/([^/?%]+)/acknowledge")
"""Targets whose parts stand for themselves. The router reads those with escapes."""
_RENEW_MANY: Final = f"{BASE}/renew".encode()


class BriefRequests:
    """Implements `adsum.mounts.FastPath`."""

    def __init__(
        self,
        reads: ServiceReads,
        renewals: BriefRenewals,
        registrations: BriefRegistrations,
        acknowledgements: BriefAcknowledgements,
        access: AccessControl,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._reads = reads
        self._renewals = renewals
        self._registrations = registrations
        self._acknowledgements = acknowledgements
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
                return self._renewals.renew_many(body, prepared, partial(self._settle, "renew_many", began, reply))
            text = target.decode("ascii")
            if not body:
                return self._renew(text, prepared, began, reply)
            return self._acknowledge(text, prepared, body, began, reply)
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
        return self._renewals.renew(Key(service, id), holder, headers, partial(self._settle, "renew", began, reply))

    def _acknowledge(self, target: str, headers: PreparedHeaders, body: bytes, began: float, reply: Reply) -> bool:
        found = _ACKNOWLEDGE.fullmatch(target)
        if found is None or not self._acknowledgements.acknowledge(found[1], headers, body):
            return False
        self._observer.answered("acknowledge", 204, self._clock.now() - began)
        reply(204, ACKNOWLEDGED)
        return True

    def _register(
        self, target: str, headers: PreparedHeaders, body: bytes, peer: str, began: float, reply: Reply
    ) -> bool:
        found = _REGISTER.fullmatch(target)
        if found is None:
            return False
        return self._registrations.register(found[1], found[2], headers, body, peer, began, reply)

    def _settle(self, operation: str, began: float, reply: Reply, result: bytes | AdsumError) -> None:
        """Sends a response with the status 200, or an error."""
        if isinstance(result, AdsumError):
            self._observer.refused(operation, result)
            problem = problem_reply(result)
            status, encoded = problem.status, problem.encode()
        else:
            status, encoded = 200, result
        self._observer.answered(operation, status, self._clock.now() - began)
        reply(status, encoded)
