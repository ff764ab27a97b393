"""Identifies callers by JWTs of one issuer, such as an OpenID provider.

PyJWT verifies signatures. Keys are read in the background, so that a request never waits for the issuer, and the last
keys stay valid while it can't be reached.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from jwt.exceptions import InvalidAudienceError, InvalidIssuerError, MissingRequiredClaimError

from adsum.access.jwk_set import IssuerKey, JwkSetError, fetch_keys, find_keys, parse_jwk_set, read_keys_file
from adsum.access.settings import AccessSettings, is_url
from adsum.core.access.identity_rules import ClaimRule, claim_scopes, principal_name
from adsum.core.access.principal import Principal
from adsum.core.errors import Invalid, StoreUnavailable, Unauthenticated
from adsum.core.validation import escape_unprintable
from adsum.outage_log import OutageLog
from adsum.ports import Clock

REFRESH_INTERVAL: Final = 300.0
"""Seconds between two readings of the keys."""
RETRY_INTERVAL: Final = 10.0
"""Seconds between two readings while they fail, and between two that unknown keys cause, at least."""
JWT_LEEWAY: Final = 30.0
"""Seconds by which the clocks of the issuer and of this node may differ: a JWT is accepted this long after its end."""
MAX_JWT_LENGTH: Final = 16 * 1024
"""Characters of a JWT. A longer text is refused."""
MAX_CACHED_JWTS: Final = 10_000
"""Verified JWTs that are cached until they expire. Past it the one that was verified first is verified again."""
MAX_TRIED_KEYS: Final = 4
"""Keys that are tried for a JWT that does not name its key. With more of them it is refused."""
NAME_PREFIX: Final = "jwt:"
"""Begins the name of a principal. A name of a token has no colon, so the two are never the same."""
REQUIRED_CLAIMS: Final = ("exp", "iss", "aud", "sub")

_log = logging.getLogger("adsum.access")


@dataclass(frozen=True, slots=True)
class _JwtRules:
    """What JWTs are compared with."""

    issuer: str
    audience: str
    place: str
    """The file or URL of the keys."""
    rules: tuple[ClaimRule, ...]

    @staticmethod
    def of(settings: AccessSettings) -> _JwtRules:
        return _JwtRules(settings.jwt_issuer, settings.jwt_audience, settings.jwt_keys, settings.claim_rules())

    @property
    def suffix(self) -> str:
        """Ends the name of a principal: @ and the host of the issuer, or the issuer if it is no URL."""
        return f"@{urlsplit(self.issuer).hostname or self.issuer}"


class JwtIdentities:
    """Implements `adsum.access.control.JwtVerifier`."""

    def __init__(
        self,
        settings: AccessSettings,
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
        *,
        fetch: Callable[[str], bytes] = fetch_keys,
    ) -> None:
        """`on_change` is called when the issuer has withdrawn keys: sessions of callers with JWTs must end.

        `fetch` returns the bytes of a URL; it runs in a thread and may raise `JwkSetError`. Raises `Invalid`.
        """
        self._settings = _JwtRules.of(settings)
        self._clock = clock
        self._on_change = on_change
        self._fetch = fetch
        self._keys: tuple[IssuerKey, ...] = ()
        self._cache: dict[bytes, tuple[Principal, float]] = {}
        self._is_wanted = asyncio.Event()
        self._next_wanted_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._outage = OutageLog(
            _log,
            "the keys of the issuer of JWTs can't be read, and the last ones stay: %s",
            "the keys can be read again",
        )

    @property
    def keys(self) -> Sequence[IssuerKey]:
        """The keys of the issuer, as they were read last."""
        return self._keys

    async def start(self) -> None:
        """Reads the keys, now and every few minutes. A failure is logged; JWTs are refused until there are keys.

        Keys of a URL are read in the background: a registry must start while the issuer can't be reached.
        """
        if is_url(self._settings.place):
            self._is_wanted.set()
        else:
            await self.load()
        self._task = asyncio.create_task(self._run(), name="adsum-jwt-keys")

    async def stop(self) -> None:
        """Stops reading keys. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def configure(self, settings: AccessSettings) -> None:
        """Takes over other settings. Call `AccessControl.identities_changed` afterwards, so that streams follow.

        Keys of another place are read in the background. Until then JWTs are refused. Raises `Invalid`.
        """
        before, self._settings = self._settings, _JwtRules.of(settings)
        self._cache = {}
        if self._settings.place != before.place:
            self._keys = ()
        self._is_wanted.set()

    def read_keys_soon(self) -> None:
        """Has the keys read again in the background."""
        self._is_wanted.set()

    def identify(self, token: str) -> Principal:
        """Returns the principal that a JWT proves. Its scopes are empty if no rule concerns its claims.

        Raises `Unauthenticated`, and `StoreUnavailable` while the keys of the issuer have never been read.
        """
        if len(token) > MAX_JWT_LENGTH or not token.isascii():
            raise _malformed()
        digest = sha256(token.encode()).digest()
        known = self._cache.get(digest)
        if known is None:
            known = self._verify(token)
            if len(self._cache) >= MAX_CACHED_JWTS:
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = known
        principal, end = known
        if self._clock.wall() >= end:
            self._cache.pop(digest, None)
            raise Unauthenticated("the JWT has expired: get a new one", reason="expired")
        return principal

    def _verify(self, token: str) -> tuple[Principal, float]:
        """Returns the principal of a JWT, and when it ends on the wall clock. Raises `Unauthenticated`."""
        try:
            header = jwt.get_unverified_header(token)
        except Exception as error:
            # Errors of any kind: the bytes may be anything, such as deeply nested JSON.
            raise _malformed() from error
        if "crit" in header:
            # RFC 7515, 4.1.11: what is critical and not understood is refused; nothing is understood here.
            raise Unauthenticated("the JWT has critical headers, which are not supported", reason="malformed")
        claims = self._claims(token, self._candidates(header))
        end = _time(claims, "exp") + JWT_LEEWAY
        if "nbf" in claims and _time(claims, "nbf") > self._clock.wall() + JWT_LEEWAY:
            raise Unauthenticated("the JWT is not valid yet", reason="expired")
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject:
            raise Unauthenticated("the claim sub of the JWT must be a text", reason="malformed")
        try:
            name = principal_name(f"{NAME_PREFIX}{subject}{self._settings.suffix}")
        except Invalid as error:
            raise Unauthenticated(f"the subject of the JWT {error.problem}", reason="malformed") from error
        scopes = claim_scopes(self._settings.rules, claims)
        return Principal(name, scopes, expires=end, method="jwt"), end

    def _candidates(self, header: Mapping[str, Any]) -> list[IssuerKey]:
        """Returns the keys that may have signed a JWT. Raises `Unauthenticated` if there is none or too many."""
        if not self._keys:
            raise StoreUnavailable("the keys of the issuer of JWTs are not loaded yet; try again", RETRY_INTERVAL)
        found = find_keys(self._keys, header)
        if not found:
            self._want_keys()
            raise Unauthenticated(
                "the JWT is signed by no known key of the issuer, or with an algorithm that is not accepted; if the "
                f"issuer has new keys, they are known in {RETRY_INTERVAL:g} s",
                reason="wrong-credentials",
            )
        if len(found) > MAX_TRIED_KEYS:
            raise Unauthenticated("the JWT must name its key in the header kid", reason="malformed")
        return found

    def _claims(self, token: str, keys: Sequence[IssuerKey]) -> dict[str, Any]:
        """Returns the claims of a JWT after verifying its signature, issuer and audience."""
        settings, problem = self._settings, "the signature of the JWT is wrong"
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=sorted(key.algorithms),
                    issuer=settings.issuer,
                    audience=settings.audience,
                    # Times are compared with the clock of the node, which tests advance.
                    options={
                        "require": list(REQUIRED_CLAIMS),
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except InvalidAudienceError:
                problem = f"the JWT is not for the audience {settings.audience}"
            except InvalidIssuerError:
                problem = f"the JWT is not of the issuer {settings.issuer}"
            except MissingRequiredClaimError:
                problem = f"the JWT must have the claims {', '.join(REQUIRED_CLAIMS)}"
            except Exception:
                _log.debug("a JWT is refused", exc_info=True)
        raise Unauthenticated(problem, reason="wrong-credentials")

    def _want_keys(self) -> None:
        """Has the keys read soon, unless that was done a moment ago."""
        now = self._clock.now()
        if now >= self._next_wanted_at:
            self._next_wanted_at = now + RETRY_INTERVAL
            self._is_wanted.set()

    async def _run(self) -> None:
        while True:
            waiting = REFRESH_INTERVAL if not self._outage.is_failing else RETRY_INTERVAL
            timer = asyncio.create_task(self._clock.sleep(waiting), name="adsum-jwt-keys-timer")
            wanted = asyncio.create_task(self._is_wanted.wait(), name="adsum-jwt-keys-wanted")
            try:
                await asyncio.wait((timer, wanted), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                wanted.cancel()
            await self.load()

    async def load(self) -> bool:
        """Reads the keys now. Returns whether that worked; if not, the last ones stay."""
        self._is_wanted.clear()
        place = self._settings.place
        try:
            body = await asyncio.to_thread(self._fetch if is_url(place) else read_keys_file, place)
            keys = await asyncio.to_thread(parse_jwk_set, body)
        except JwkSetError as error:
            self._outage.failed(escape_unprintable(str(error)))
            return False
        except Exception as error:
            _log.exception("the keys of the issuer of JWTs can't be read")
            self._outage.failed(type(error).__name__)
            return False
        if place != self._settings.place:
            return False
        self._outage.recovered()
        self._replace(keys)
        return True

    def _replace(self, keys: tuple[IssuerKey, ...]) -> None:
        """Takes over keys. JWTs of keys that are gone are refused from now on."""
        before, self._keys = self._keys, keys
        if any(key not in keys for key in before):
            self._cache = {}
            self._on_change()


def _time(claims: Mapping[str, Any], name: str) -> float:
    """Returns a claim that is a time. Raises `Unauthenticated`."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_TIME:
        raise Unauthenticated(f"the claim {name} of the JWT must be seconds since 1970", reason="malformed")
    return float(value)


_MAX_TIME: Final = 1e12
"""Seconds since 1970, at most. Larger numbers are no times."""


def _malformed() -> Unauthenticated:
    return Unauthenticated("this is neither a token of this registry (adsum_…) nor a JWT", reason="malformed")
