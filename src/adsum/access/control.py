"""Access control of one node: who a caller is, whether it may do something, and what was refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from math import inf
from typing import Final, Protocol

from adsum.access.credentials import Credentials
from adsum.access.failures import FailureLimiter
from adsum.access.sessions import Sessions
from adsum.access.token_index import TokenIndex
from adsum.core.access import gate
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal, anonymous
from adsum.core.access.scopes import NO_SCOPES, Scopes
from adsum.core.access.tokens import TOKEN_PREFIX, parse_token, verify
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT
from adsum.core.errors import AdsumError, Forbidden, InvisibleService, StoreUnavailable, Unauthenticated
from adsum.core.token_bucket import TokenBucket
from adsum.core.validation import escape_unprintable
from adsum.ports import Clock
from adsum.registry import Registry

LOGGED_REFUSALS_RATE: Final = 1.0
"""Refusals per second that are logged. Further ones are only counted."""
LOGGED_REFUSALS_BURST: Final = 20.0
"""Refusals that are logged at once."""
REFUSALS: Final = (Unauthenticated, Forbidden, InvisibleService)
"""The errors with which access control refuses a request."""

_log = logging.getLogger("adsum.access")


class CertificateVerifier(Protocol):
    """Identifies callers by client certificates."""

    def identify(self, certificate: bytes) -> Principal:
        """Returns the principal that a certificate (DER) proves. Raises `Unauthenticated`."""
        ...


class JwtVerifier(Protocol):
    """Identifies callers by JWTs."""

    def identify(self, token: str) -> Principal:
        """Returns the principal that a JWT proves. Raises `Unauthenticated`."""
        ...


class AccessControl:
    """Authenticates callers by the tokens that the registry stores, and by certificates and JWTs."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        default_anonymous: Scopes,
        on_refused: Callable[[str, str], None],
    ) -> None:
        """`default_anonymous`: the scopes of callers that prove nothing while no token `anonymous` is declared.

        `on_refused` is called with the operation and the reason of each refusal.
        """
        self._registry = registry
        self.clock = clock
        self._on_refused = on_refused
        self._failures = FailureLimiter()
        self._log_budget = TokenBucket(LOGGED_REFUSALS_RATE, LOGGED_REFUSALS_BURST)
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshot = EMPTY_SNAPSHOT
        self.certificates: CertificateVerifier | None = None
        """Identifies callers by client certificates; None: they prove nothing. `CallerIdentities` sets it."""
        self.jwts: JwtVerifier | None = None
        """Identifies callers by JWTs; None: they are refused. `CallerIdentities` sets it."""
        self.tokens = TokenIndex(default_anonymous)
        """The tokens. Call `refresh` before reading them outside of `identify`."""
        self.sessions = Sessions(clock)
        self.last_used: dict[str, float] = {}
        """Id of a token → the time on the wall clock at which it was used here last. Tokens that exist are in it."""

    @property
    def anonymous(self) -> Principal:
        """The principal of callers that prove nothing. It has no scopes once the token `anonymous` has expired."""
        self.refresh()
        principal = self.tokens.anonymous
        if principal.expires is not None and principal.expires <= self.clock.wall():
            return anonymous(NO_SCOPES)
        return principal

    def refresh(self) -> None:
        """Takes over changed tokens of the newest snapshot, and ends the sessions of those that were revoked."""
        snapshot = self._registry.snapshot
        if snapshot is self._snapshot:
            return
        changes = self.tokens.update(snapshot.documents)
        self._snapshot = snapshot
        self.sessions.end(changes.ended)
        for id, secrets in changes.rotated.items():
            self.sessions.rotate(id, secrets)
        for id in changes.ended:
            if self.tokens.find(id) is None:
                self.last_used.pop(id, None)

    def identities_changed(self) -> None:
        """Ends the sessions of callers that no token proves: the scopes of certificates or JWTs are other ones now."""
        self.sessions.end([""])

    def identify(self, credentials: Credentials) -> Principal:
        """Returns the principal. A token outranks the certificate of the connection; a JWT is a token here.

        Raises `Unauthenticated`: wrong credentials are never taken for none. Raises `StoreUnavailable` while the tokens
        are not loaded yet.
        """
        token, certificate, _ = credentials
        certificates = self.certificates if certificate and not token else None
        if not token and certificates is None:
            return self.anonymous
        self.refresh()
        if not self._registry.is_ready:
            raise StoreUnavailable("the tokens are not loaded yet; try again")
        if certificates is not None:
            principal = certificates.identify(certificate)
            if principal.token_id:
                self.last_used[principal.token_id] = self.clock.wall()
            return principal
        if self.jwts is not None and not token.startswith(TOKEN_PREFIX):
            return self.jwts.identify(token)
        id, secret = parse_token(token)
        now = self.clock.wall()
        known = verify(self.tokens.find(id), secret, now)
        self.last_used[id] = now
        return self.tokens.principal(id, known)

    def remember(self, credentials: Credentials) -> RememberedCaller:
        """Returns a caller that sends the same credentials with many requests."""
        return RememberedCaller(self, credentials)

    def allows(self, principal: Principal, action: Action, service: str) -> bool:
        """Returns whether the principal may do the action on the service."""
        return gate.decide(principal, action, (service,)) is gate.GateVerdict.ALLOWED

    def require(self, principal: Principal, action: Action, services: Iterable[str] = ()) -> None:
        """Returns if the principal may do the action. Raises what `gate.require` raises."""
        gate.require(principal, action, services)

    def session(self, principal: Principal, end: Callable[[], None]) -> AbstractContextManager[None]:
        """Returns a context in which `end` is called once if the rights of the principal end or change.

        If they ended since it was identified, `end` is called when the context is entered.
        """
        self.refresh()
        return self.sessions.open(principal, end, is_current=self.tokens.is_current(principal))

    def record_refusal(self, operation: str, error: AdsumError, credentials: Credentials) -> None:
        """Counts a refusal of access control, and logs it unless too many were logged already. Ignores other errors."""
        if not isinstance(error, REFUSALS):
            return
        self._on_refused(operation, error.reason)
        if self._log_budget.take(self.clock.now()):
            _log.warning("refused %s to %s: %s", operation, credentials.address, escape_unprintable(str(error)))

    async def slow_down(self, error: AdsumError, address: str) -> None:
        """Delays the answer to wrong credentials if the address has sent many. Missing ones are not delayed."""
        if isinstance(error, Unauthenticated) and error.reason != "no-credentials":
            delay = self._failures.delay(address, self.clock.now())
            if delay:
                await self.clock.sleep(delay)

    def start(self) -> None:
        """Follows the registry, so that a revoked token ends its streams at once."""
        self._tasks = [
            asyncio.create_task(self._follow(), name="adsum-access-follow"),
            asyncio.create_task(self.sessions.run(), name="adsum-access-expiry"),
        ]

    async def stop(self) -> None:
        """Stops following. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                self.refresh()
            except Exception:
                # Whoever is revoked later must lose its streams, too.
                _log.exception("the tokens of revision %d could not be taken over", self._registry.snapshot.revision)
            await self._registry.next_change()


class RememberedCaller:
    """A caller that sends the same credentials with many requests: its token is verified again only after a change."""

    __slots__ = ("_access", "_credentials", "_ends_at", "_generation", "_principal")

    def __init__(self, access: AccessControl, credentials: Credentials) -> None:
        self._access = access
        self._credentials = credentials
        self._principal: Principal | None = None
        """The principal that the token proves while no token changes. None: it is identified anew."""
        self._generation = -1
        self._ends_at = inf

    def identify(self) -> Principal:
        """Returns the principal as it is now. See `AccessControl.identify`, which also says what this raises."""
        access = self._access
        if self._principal is not None:
            access.refresh()
            now = access.clock.wall()
            if access.tokens.generation == self._generation and now < self._ends_at:
                access.last_used[self._principal.token_id] = now
                return self._principal
            self._principal = None
        principal = access.identify(self._credentials)
        if principal.secret_id:  # A secret proved it. Certificates and JWTs have caches of their own.
            self._principal, self._generation = principal, access.tokens.generation
            self._ends_at = inf if principal.expires is None else principal.expires
        return principal

    def __repr__(self) -> str:
        return f"RememberedCaller({self._credentials!r})"
