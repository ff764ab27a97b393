"""The cost of access control for one request, in one process: who the caller is, and whether it may do something.

The node knows many tokens. Each value is the best of several repeats, since other load on the machine only adds time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from timeit import repeat
from typing import Final, cast

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm

from adsum.access.caller_identities import CallerIdentities
from adsum.access.control import AccessControl
from adsum.access.credentials import NO_CREDENTIALS, Credentials
from adsum.access.settings import AccessSettings
from adsum.clock import SystemClock
from adsum.core.access.actions import Action
from adsum.core.access.scopes import Scopes, parse_scopes
from adsum.core.access.tokens import Token, TokenSecret, format_token, hash_secret
from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import FullState
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind
from adsum.core.errors import Unauthenticated
from adsum.core.provenance import Cause, Provenance
from adsum.registry import Registry
from adsum.wire.tokens import encode_token
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, ResultRow, duration

TOKENS: Final = 5_000
"""Tokens that the node knows."""
AIM: Final = 5e-6
"""Maximum seconds for a known token."""
ISSUER: Final = "https://login.example.org"
SERVICES: Final = ("orders",)
SCOPES: Final = ("write:orders", "read:team-a-*", "read:users")
KEY: Final = ec.generate_private_key(ec.SECP256R1())


def run(options: RunOptions) -> list[Result]:
    access = _access_control(options.count(TOKENS, 50))
    known, wrong = format_token(f"{7:016x}", f"{7:043d}"), format_token(f"{7:016x}", f"{8:043d}")
    callers = {
        "a known token": Credentials(known),
        "a client certificate": Credentials("", _certificate()),
        "a JWT that was verified before": Credentials(_jwt()),
        "nobody": NO_CREDENTIALS,
    }
    rows: list[Result] = [
        _row(options, f"identify and require: {name}", _checks(access, credentials), aim=name != "nobody")
        for name, credentials in callers.items()
    ]
    rows.append(_row(options, "identify: a wrong token", _refusals(access, Credentials(wrong)), aim=False))
    return rows


def _row(options: RunOptions, label: str, check: Callable[[], object], *, aim: bool) -> ResultRow:
    turns = options.count(20_000, 100)
    seconds = min(repeat(check, number=turns, repeat=options.count(9, 2))) / turns
    return ResultRow(
        label,
        duration(seconds),
        aim=f"< {duration(AIM)}" if aim else "",
        is_met=seconds < AIM if aim else None,
        values=(("seconds", seconds),),
    )


def _checks(access: AccessControl, credentials: Credentials) -> Callable[[], object]:
    def check() -> None:
        access.require(access.identify(credentials), Action.READ, SERVICES)

    return check


def _refusals(access: AccessControl, credentials: Credentials) -> Callable[[], object]:
    def refuse() -> None:
        try:
            access.identify(credentials)
        except Unauthenticated:
            return
        raise AssertionError("a wrong token was accepted")

    return refuse


def _scopes() -> Scopes:
    return parse_scopes("scopes", SCOPES)


@dataclass
class _LoadedRegistry:
    """A registry as access control sees it."""

    snapshot: snapshots.Snapshot
    is_ready: bool = True


def _access_control(count: int) -> AccessControl:
    why = Provenance(Cause.DECLARED, "bench")
    documents: list[tuple[int, Document]] = []
    for number in range(count):
        token = Token(f"token-{number}", f"{number:016x}", _scopes(), [TokenSecret(hash_secret(f"{number:043d}"))])
        documents.append((1, Document(DocumentKey(DocumentKind.TOKEN, token.name), encode_token(token), why)))
    snapshot = snapshots.load_snapshot(FullState("bench", 1, (), documents))
    clock = SystemClock()
    access = AccessControl(cast("Registry", _LoadedRegistry(snapshot)), clock, _scopes(), lambda *_: None)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        public = {**json.loads(ECAlgorithm.to_jwk(KEY.public_key())), "kid": "bench"}
        Path(file.name).write_text(json.dumps({"keys": [public]}))
        identities = CallerIdentities(
            access,
            clock,
            AccessSettings(
                ("spiffe://example.org/*=write:orders",), ISSUER, "adsum", file.name, ("groups=team-a=write:orders",)
            ),
            b"",
        )
        asyncio.run(_load_keys(identities))
    return access


async def _load_keys(identities: CallerIdentities) -> None:
    await identities.start()
    await identities.stop()


def _certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    uri = x509.UniformResourceIdentifier("spiffe://example.org/bench")
    builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def _jwt() -> str:
    claims = {"iss": ISSUER, "aud": "adsum", "sub": "bench", "exp": time.time() + 3_600, "groups": ["team-a"]}
    return jwt.encode(claims, KEY, "ES256", headers={"kid": "bench"})
