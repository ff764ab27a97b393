"""Issuers of JWTs for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.fakes import run_until_idle

ISSUER: Final = "https://login.example.org/realms/main"
AUDIENCE: Final = "adsum"
NOW: Final = 1_700_000_000
"""The present of a new `FakeClock` on the wall."""


def use_one_thread() -> None:
    """Has the running loop use one thread for blocking calls, so that `settle` knows when they are done."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))


async def settle() -> None:
    """Runs until the keys are read that are wanted now, in the one thread: first the bytes, then the keys in them."""
    for _ in range(3):
        await run_until_idle()
        await asyncio.to_thread(lambda: None)
    await run_until_idle()


@cache
def private_key(kind: str) -> Any:
    """A key of the kind: rsa, rsa-1024, p256, p384, p521, k256, ed25519 or ed448, and any suffix for another one."""
    base = kind.split(":", maxsplit=1)[0]
    if base.startswith("rsa"):
        return rsa.generate_private_key(65_537, 1_024 if base.endswith("1024") else 2_048)
    if base == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if base == "ed448":
        return ed448.Ed448PrivateKey.generate()
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k256": ec.SECP256K1()}
    return ec.generate_private_key(curves[base])


def jwk(kind: str, *, private: bool = False, **members: Any) -> dict[str, Any]:
    """The public key as a member of a JWK set."""
    key = private_key(kind)
    shown = key if private else key.public_key()
    algorithm = RSAAlgorithm if kind.startswith("rsa") else OKPAlgorithm if kind.startswith("ed") else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(shown)), **members}


def jwk_set(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that are accepted, with changes; None leaves a claim out."""
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": NOW + 600, "groups": ["team-a"]}
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def sign(kind: str = "p256", algorithm: str = "ES256", headers: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A JWT of the key, with changed claims. Its header names the key `k1` unless `headers` are given."""
    return jwt.encode(
        claims(**changes), private_key(kind), algorithm, headers=dict({"kid": "k1"} if headers is None else headers)
    )
