"""The public keys of an issuer of JWTs: a JWK set (RFC 7517), read from a file or an https URL."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt import PyJWK

MAX_JWK_SET_BYTES: Final = 1024 * 1024
"""Bytes of a JWK set. A larger one is refused, and the keys before it stay."""
MAX_KEYS: Final = 256
"""Keys of an issuer. Further ones are ignored."""
FETCH_TIMEOUT: Final = 5.0
"""Seconds that a server may take to deliver the keys. Then the keys before them stay."""
MIN_RSA_BITS: Final = 2_048
"""Bits of an RSA key, at least (RFC 7518, 3.3). A shorter key is ignored."""

RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the algorithms that it may verify. They follow from the key, never from a token."""

    id: str | None
    key: PublicKey
    algorithms: frozenset[str]


class JwkSetError(Exception):
    """The JWK set can't be read; the message says why."""


def parse_jwk_set(body: bytes) -> tuple[IssuerKey, ...]:
    """Returns the keys that verify signatures; the others, such as symmetric ones, are ignored.

    Raises `JwkSetError` if there is none.
    """
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    members = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(members, list):
        raise JwkSetError("it is no JWK set: it must be a JSON object with a list `keys`")
    found = [key for member in members[:MAX_KEYS] if (key := _parse_key(member)) is not None]
    if not found:
        raise JwkSetError("it has no public key for RS*, PS*, ES* or EdDSA signatures")
    return tuple(found)


def _parse_key(member: Any) -> IssuerKey | None:
    """Returns a key of a JWK set; None if it can't verify signatures of JWTs."""
    if not isinstance(member, dict) or member.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    operations = member.get("key_ops", ["verify"])
    if member.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = PyJWK(member).key
    except Exception:
        # The library raises errors of many kinds for a member that is no key, such as NotImplementedError.
        return None
    if isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    ):
        key = key.public_key()
    algorithms = _algorithms(key)
    if "alg" in member:
        algorithms &= {member["alg"]} if isinstance(member["alg"], str) else set()
    id = member.get("kid")
    return IssuerKey(id if isinstance(id, str) else None, key, algorithms) if algorithms else None


def _algorithms(key: object) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        return RSA_ALGORITHMS if key.key_size >= MIN_RSA_BITS else frozenset()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return frozenset({CURVE_ALGORITHMS[key.curve.name]} if key.curve.name in CURVE_ALGORITHMS else ())
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return frozenset({"EdDSA"})
    return frozenset()


def find_keys(keys: Sequence[IssuerKey], header: Mapping[str, Any]) -> list[IssuerKey]:
    """Returns the keys that may have signed a JWT with this header: at most one unless ids repeat."""
    algorithm, id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        return []
    fitting = [key for key in keys if algorithm in key.algorithms]
    return fitting if id is None else [key for key in fitting if key.id == id]


def read_keys_file(path: str) -> bytes:
    """Returns the bytes of a file. Raises `JwkSetError`."""
    try:
        with Path(path).open("rb") as file:
            body = file.read(MAX_JWK_SET_BYTES + 1)
    except (OSError, ValueError) as error:
        raise JwkSetError(f"the file {path} can't be read: {error}") from error
    if len(body) > MAX_JWK_SET_BYTES:
        raise JwkSetError(f"the file {path} has more than {MAX_JWK_SET_BYTES} bytes")
    return body


def fetch_keys(url: str) -> bytes:
    """Returns the bytes of a URL. It blocks, so call it in a thread. Raises `JwkSetError`.

    Redirects are not followed: they could lead to a server that the operator did not choose.
    """
    deadline, body = time.monotonic() + FETCH_TIMEOUT, bytearray()
    try:
        with (
            httpx.Client(timeout=FETCH_TIMEOUT, follow_redirects=False) as client,
            client.stream(
                "GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}
            ) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise JwkSetError(f"{url} answered {response.status_code}")
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_JWK_SET_BYTES:
                    raise JwkSetError(f"{url} delivers more than {MAX_JWK_SET_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise JwkSetError(f"{url} did not deliver the keys within {FETCH_TIMEOUT:g} s")
    except httpx.HTTPError as error:
        raise JwkSetError(f"{url} can't be fetched: {error or type(error).__name__}") from error
    return bytes(body)
