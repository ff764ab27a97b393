"""Sessions: streams and waiting requests that end when the caller's rights end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Final

from adsum.core.access.principal import Principal
from adsum.core.access.tokens import earlier
from adsum.ports import Clock

EXPIRY_INTERVAL: Final = 0.5
"""Seconds between two looks for sessions whose credentials have expired."""
RIGHTS_CHANGED: Final = "the rights of the caller have changed or ended: connect again"
"""Sent to the callers of sessions that end."""

_log = logging.getLogger("adsum.access")


class Session:
    """One stream or waiting request of a principal; a context manager, in which the session is open.

    A class and not a generator: ten thousand streams keep one each.
    """

    __slots__ = ("_end", "_is_current", "_sessions", "expires", "is_over", "secret_id", "token_id")

    def __init__(self, sessions: Sessions, principal: Principal, end: Callable[[], None], *, is_current: bool) -> None:
        self._sessions = sessions
        self._end = end
        self._is_current = is_current
        self.token_id = principal.token_id
        self.secret_id = principal.secret_id
        self.expires = principal.expires
        self.is_over = False
        """True once it was ended or closed."""

    def __enter__(self) -> None:
        self._sessions.add(self)
        if not self._is_current:
            self._sessions.end_all([self])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.is_over = True
        self._sessions.forget(self)

    def end(self) -> bool:
        """Ends the session, unless it is over. Returns whether it did. An error of its owner is logged."""
        if self.is_over:
            return False
        self.is_over = True
        try:
            self._end()
        except Exception:
            # The other sessions of a revoked token must end, too.
            _log.exception("a session could not be ended")
        return True


class Sessions:
    """The open sessions of a node, by the id of the token that proves who the caller is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_token: dict[str, set[Session]] = {}
        self._expiring: set[Session] = set()
        self._first_expiry = math.inf
        """No session expires before this time on the wall clock, so that a look costs nothing before it."""

    def __len__(self) -> int:
        """The number of open sessions."""
        return sum(map(len, self._by_token.values()))

    @property
    def token_ids(self) -> Collection[str]:
        """The ids of the tokens that have open sessions; "" stands for principals without one."""
        return self._by_token.keys()

    def open(self, principal: Principal, end: Callable[[], None], *, is_current: bool = True) -> Session:
        """Calls `end` once if the rights of the principal end while the returned context is open.

        `is_current`: whether the principal still has its rights. If it does not, `end` is called at once.
        """
        return Session(self, principal, end, is_current=is_current)

    def add(self, session: Session) -> None:
        """Adds a session that begins."""
        self._by_token.setdefault(session.token_id, set()).add(session)
        self._note_expiry(session)

    def end(self, token_ids: Iterable[str]) -> int:
        """Ends the sessions of these tokens; "" stands for principals without one. Returns how many ended."""
        return self.end_all([session for id in token_ids for session in self._by_token.get(id, ())])

    def rotate(self, token_id: str, secrets: Mapping[str, float | None]) -> int:
        """Takes over the secrets of a token: the id of each, and the time on the wall clock at which it ends.

        Ends the sessions that were opened with another secret. Returns how many ended. Sessions that were opened with a
        certificate of the token go on.
        """
        ended: list[Session] = []
        for session in self._by_token.get(token_id, ()):
            if not session.secret_id:
                continue
            if session.secret_id not in secrets:
                ended.append(session)
                continue
            session.expires = earlier(session.expires, secrets[session.secret_id])
            self._note_expiry(session)
        return self.end_all(ended)

    async def run(self) -> None:
        """Ends sessions whose credentials expire, until cancelled."""
        while True:
            await self._clock.sleep(EXPIRY_INTERVAL)
            self.expire(self._clock.wall())

    def expire(self, now: float) -> int:
        """Ends the sessions whose credentials have expired by `now`, on the wall clock. Returns how many ended."""
        if now < self._first_expiry:
            return 0
        count = self.end_all([session for session in self._expiring if _expiry(session) <= now])
        self._first_expiry = min(map(_expiry, self._expiring), default=math.inf)
        return count

    def _note_expiry(self, session: Session) -> None:
        if session.expires is not None:
            self._expiring.add(session)
            self._first_expiry = min(self._first_expiry, session.expires)

    def end_all(self, sessions: Iterable[Session]) -> int:
        """Ends these sessions. Returns how many ended."""
        count = 0
        for session in sessions:
            self.forget(session)
            count += session.end()
        return count

    def forget(self, session: Session) -> None:
        """Removes a session that is over."""
        self._expiring.discard(session)
        members = self._by_token.get(session.token_id)
        if members is not None:
            members.discard(session)
            if not members:
                del self._by_token[session.token_id]


def _expiry(session: Session) -> float:
    return math.inf if session.expires is None else session.expires
