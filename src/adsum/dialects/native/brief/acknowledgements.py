"""Brief acknowledgements: each change reaches every cooperating consumer, and each of them acknowledges it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adsum import wire
from adsum.access.control import AccessControl
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.errors import AdsumError
from adsum.dialects.native.api.operation import MAX_BODY_BYTES
from adsum.dialects.native.asgi import NO_STORE, ApiReply
from adsum.dialects.native.brief.prepared_headers import PreparedHeaders
from adsum.dialects.native.requests.api_request import require_unique_keys
from adsum.registry import Registry

ACKNOWLEDGED: Final = ApiReply(204, headers=(NO_STORE,)).encode()
"""The response to every acknowledgement, without the status line."""

RecordAcknowledgement = Callable[[str, wire.AcknowledgementBody, Principal], None]
"""Records an acknowledgement, given the token of the watch. Raises an `AdsumError` if it does not."""


class BriefAcknowledgements:
    """Records acknowledgements without a task. It leaves those alone that an error must answer."""

    def __init__(self, registry: Registry, access: AccessControl, record: RecordAcknowledgement) -> None:
        self._registry = registry
        self._access = access
        self._record = record

    def acknowledge(self, token: str, headers: PreparedHeaders, body: bytes) -> bool:
        """Records an acknowledgement. Returns False, and does nothing, if the application must answer."""
        if not headers.is_json or len(body) > MAX_BODY_BYTES or not self._registry.is_ready:
            return False
        try:
            principal = headers.caller.identify()
            self._access.require(principal, Action.ACKNOWLEDGE)
            content = wire.decode(body, wire.AcknowledgementBody)
            require_unique_keys(body)
            self._record(token, content, principal)
        except AdsumError:
            return False
        return True
