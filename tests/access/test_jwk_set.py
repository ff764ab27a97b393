"""Public keys of an issuer: which are used, for which algorithms, and how they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.access import jwk_set as jwk_sets
from adsum.access.jwk_set import (
    MAX_JWK_SET_BYTES,
    MAX_KEYS,
    IssuerKey,
    JwkSetError,
    fetch_keys,
    find_keys,
    parse_jwk_set,
    read_keys_file,
)
from tests.access.issuers import jwk, jwk_set
from tests.core.identity_json import json_values

ONE = jwk_set(jwk("p256", kid="k1"))


@pytest.mark.parametrize(
    ("member", "algorithms"),
    [
        (jwk("rsa"), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (jwk("rsa", alg="PS256"), {"PS256"}),
        (jwk("rsa", use="sig", key_ops=["verify"]), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (jwk("p256"), {"ES256"}),
        (jwk("p384"), {"ES384"}),
        (jwk("p521"), {"ES512"}),
        (jwk("ed25519"), {"EdDSA"}),
        (jwk("ed448", alg="EdDSA"), {"EdDSA"}),
        (jwk("p256", private=True), {"ES256"}),
    ],
)
def test_the_algorithms_follow_from_the_key(member: dict[str, Any], algorithms: set[str]) -> None:
    (key,) = parse_jwk_set(jwk_set(member))
    assert key.algorithms == algorithms
    assert not hasattr(key.key, "private_bytes"), "a private key that the issuer publishes by mistake is not kept"


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        jwk("rsa", alg="HS256"),
        jwk("rsa", alg="none"),
        jwk("rsa", alg="ES256"),
        jwk("rsa", alg=["RS256"]),
        jwk("p256", alg="ES384"),
        jwk("rsa", use="enc"),
        jwk("rsa", key_ops=["encrypt"]),
        jwk("rsa", key_ops="verify"),
        jwk("rsa-1024"),
        jwk("k256"),
        {**jwk("p256"), "x": "AA"},
        {**jwk("p256"), "x": 5},
        {"kty": "EC"},
        {"kty": "RSA", "n": "AQAB"},
        {},
        [],
        "x",
        None,
    ],
)
def test_a_key_that_must_not_verify_is_ignored(member: Any) -> None:
    assert [key.id for key in parse_jwk_set(jwk_set(member, jwk("p256", kid="good")))] == ["good"]
    with pytest.raises(JwkSetError, match="no public key"):
        parse_jwk_set(jwk_set(member))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b"\xff", b"null", b"[" * 100_000])
def test_anything_but_a_set_with_keys_is_refused(body: bytes) -> None:
    with pytest.raises(JwkSetError):
        parse_jwk_set(body)


members = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid"]), json_values, max_size=5
)


@given(st.lists(members, max_size=3))
@settings(max_examples=40)
def test_any_set_is_read_or_refused(members: list[dict[str, Any]]) -> None:
    keys = parse_jwk_set(jwk_set(jwk("p256", kid="good"), *members))
    assert keys[0].id == "good"


def test_the_number_of_keys_is_bounded() -> None:
    assert len(parse_jwk_set(jwk_set(*[jwk("p256", kid=str(n)) for n in range(MAX_KEYS + 5)]))) == MAX_KEYS


def test_a_key_is_found_by_its_id_and_algorithm() -> None:
    keys = parse_jwk_set(jwk_set(jwk("p256", kid="k1"), jwk("rsa", kid="k2"), jwk("p256:2")))

    def found(**header: Any) -> list[IssuerKey]:
        return find_keys(keys, header)

    assert found(alg="ES256", kid="k1") == [keys[0]]
    assert found(alg="RS256", kid="k2") == [keys[1]]
    assert found(alg="ES256") == [keys[0], keys[2]]
    for header in ({"alg": "RS256", "kid": "k1"}, {"alg": "none"}, {"alg": "HS256", "kid": "k2"}, {"kid": "k1"}, {}):
        assert find_keys(keys, header) == []
    assert found(alg="ES256", kid="") == found(alg="ES256", kid=7) == []


def test_a_file_is_read_and_its_errors_are_sentences(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(JwkSetError, match="can't be read"):
        read_keys_file(str(path))
    path.write_bytes(ONE)
    assert read_keys_file(str(path)) == ONE
    path.write_bytes(b" " * (MAX_JWK_SET_BYTES + 1))
    with pytest.raises(JwkSetError, match="more than"):
        read_keys_file(str(path))
    with pytest.raises(JwkSetError):
        read_keys_file(str(tmp_path))
    with pytest.raises(JwkSetError):
        read_keys_file("a\x00b")


@contextmanager
def _serving(status: int, body: bytes, *headers: tuple[str, str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            server.shutdown()
            thread.join()


def test_a_url_is_fetched() -> None:
    with _serving(200, ONE) as url:
        assert fetch_keys(url) == ONE


@pytest.mark.parametrize(
    ("status", "body", "header", "problem"),
    [
        (404, b"", ("A", "b"), "answered 404"),
        (302, b"", ("Location", "/other"), "answered 302"),
        (200, b" " * (MAX_JWK_SET_BYTES + 1), ("A", "b"), "delivers more than"),
        (200, b"x" * 50, ("Content-Encoding", "gzip"), "can't be fetched"),
    ],
)
def test_a_url_that_does_not_deliver_is_an_error(
    status: int, body: bytes, header: tuple[str, str], problem: str
) -> None:
    with _serving(status, body, header) as url, pytest.raises(JwkSetError, match=problem):
        fetch_keys(url)


def test_a_server_that_delivers_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwk_sets, "FETCH_TIMEOUT", 1.0)
    times = iter([0.0, *[2.0] * 50])
    monkeypatch.setattr(jwk_sets, "time", type("Time", (), {"monotonic": staticmethod(lambda: next(times))}))
    with _serving(200, ONE) as url, pytest.raises(JwkSetError, match="within 1 s"):
        fetch_keys(url)


def test_a_server_that_is_away_is_an_error() -> None:
    with _serving(200, ONE) as url:
        pass
    with pytest.raises(JwkSetError, match="can't be fetched"):
        fetch_keys(url)
