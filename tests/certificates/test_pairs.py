"""Pairs of a certificate and its key in the operator's files."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from adsum.certificates.authority import Authority
from adsum.certificates.certificate import MAX_CERTIFICATES_BYTES
from adsum.certificates.pairs import make_pair, read_pair, read_pem
from adsum.certificates.requests import create_request, encode_key, new_key
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid

AUTHORITY = Authority.create(time.time())
KEY = new_key()
CHAIN = AUTHORITY.sign(create_request(KEY, "n1"), name="n1", token_id="0" * 16, role=TokenRole.NODE, now=time.time())


def test_a_pair_has_its_chain_its_key_and_its_root() -> None:
    pair = make_pair(CHAIN + AUTHORITY.certificate_pem(), encode_key(KEY))
    assert pair.leaf.public_key() == KEY.public_key()
    assert pair.root == AUTHORITY.certificate
    assert make_pair(CHAIN, encode_key(KEY)).root is None
    assert "PRIVATE" not in repr(pair)


def test_both_files_may_hold_both() -> None:
    both = encode_key(KEY) + b"some words\n" + CHAIN
    pair = make_pair(both, both)
    assert b"PRIVATE" not in pair.chain
    assert b"CERTIFICATE" not in pair.key


@pytest.mark.parametrize(
    ("chain", "key", "field", "words"),
    [
        (CHAIN, encode_key(new_key()), "tls_key", "does not belong"),
        (AUTHORITY.certificate_pem() + CHAIN, encode_key(KEY), "tls_key", "must come first"),
        (CHAIN[: len(CHAIN) // 2], encode_key(KEY), "tls_cert", "PEM"),
        (CHAIN, encode_key(KEY)[:60], "tls_key", "one private key"),
        (CHAIN, b"", "tls_key", "one private key"),
        (CHAIN, encode_key(KEY) * 2, "tls_key", "one private key"),
        (b"", encode_key(KEY), "tls_cert", "PEM"),
        (CHAIN, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "tls_key", "private key in PEM"),
        (
            CHAIN,
            KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            "tls_key",
            "encrypted",
        ),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(chain: bytes, key: bytes, field: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        make_pair(chain, key)
    assert caught.value.field == field


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_break_the_parser(chain: bytes, key: bytes) -> None:
    with pytest.raises(Invalid):
        make_pair(chain, key)


# A flipped byte may make a serial number negative, for example: the parser accepts that, and warns.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, len(CHAIN) - 1), st.integers(1, 255))
def test_no_flipped_byte_of_a_chain_breaks_the_parser(position: int, flip: int) -> None:
    changed = bytearray(CHAIN)
    changed[position] ^= flip
    with suppress(Invalid):
        make_pair(bytes(changed), encode_key(KEY))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(CHAIN)
    with pytest.raises(Invalid, match=r"key\.pem can't be read: No such file") as caught:
        read_pair(chain, key)
    assert caught.value.field == "tls_key"
    key.write_bytes(encode_key(KEY))
    assert read_pair(chain, key).chain == CHAIN
    chain.write_bytes(b"x" * (MAX_CERTIFICATES_BYTES + 1))
    with pytest.raises(Invalid, match="must have at most"):
        read_pem(chain, "tls_cert")
