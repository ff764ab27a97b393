"""A rights watch notices that the rights of the caller end or change, while a request waits or a stream is open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from adsum.access.control import AccessControl
from adsum.access.sessions import RIGHTS_CHANGED
from adsum.core.access.principal import Principal
from adsum.core.errors import Unauthenticated


class RightsWatch:
    """Within a `with` block, sets `have_ended` and calls `on_end` when the rights of the principal end or change."""

    __slots__ = ("_access", "_on_end", "_principal", "_session", "have_ended")

    def __init__(self, access: AccessControl, principal: Principal, on_end: Callable[[], None]) -> None:
        self._access = access
        self._principal = principal
        self._on_end = on_end
        self._session: AbstractContextManager[None] | None = None
        self.have_ended = False

    @property
    def principal(self) -> Principal:
        """The principal whose rights are watched."""
        return self._principal

    def require(self) -> None:
        """Returns if the rights are as they were. Raises `Unauthenticated`."""
        if self.have_ended:
            raise Unauthenticated(RIGHTS_CHANGED, reason="revoked")

    def __enter__(self) -> RightsWatch:
        self._session = self._access.session(self._principal, self._end)
        self._session.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.__exit__(kind, error, at)

    def _end(self) -> None:
        self.have_ended = True
        self._on_end()
