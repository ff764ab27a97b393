"""What the authority signs, and what it does not."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adsum.certificates.authority import (
    AUTHORITY_LIFETIME,
    BACKDATED,
    LIFETIMES,
    TOKEN_URI,
    Authority,
    token_id_of,
)
from adsum.certificates.certificate import certificate_hash
from adsum.certificates.requests import MAX_REQUEST_BYTES, MAX_REQUEST_NAMES, create_request, encode_key, new_key
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid

NOW = 1_800_000_000.0
TOKEN_ID = "00112233445566aa"
ADDRESS = ipaddress.IPv4Address("10.0.0.5")
AUTHORITY = Authority.create(NOW)


def _sign(request: bytes, role: TokenRole = TokenRole.CLIENT, now: float = NOW) -> x509.Certificate:
    chain = AUTHORITY.sign(request, name="web", token_id=TOKEN_ID, role=role, now=now)
    (certificate,) = x509.load_pem_x509_certificates(chain)
    return certificate


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _purposes(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize("role", [TokenRole.CLIENT, TokenRole.GATEWAY, TokenRole.PLAIN])
def test_only_a_node_gets_the_names_that_it_requests_and_may_serve(role: TokenRole) -> None:
    request = create_request(new_key(), "whoever", ["registry.example"], [ADDRESS])
    certificate, node = _sign(request, role), _sign(request, TokenRole.NODE)
    assert list(_names(certificate)) == [x509.UniformResourceIdentifier(f"{TOKEN_URI}{TOKEN_ID}")]
    assert _purposes(certificate) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert _names(node).get_values_for_type(x509.DNSName) == ["registry.example"]
    assert _names(node).get_values_for_type(x509.IPAddress) == [ADDRESS]
    assert _purposes(node) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    for signed in (certificate, node):
        assert token_id_of(signed) == TOKEN_ID
        assert signed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "web"
        assert AUTHORITY.has_signed(signed)


def test_a_request_gets_neither_a_ca_nor_uris_nor_usages_of_its_own() -> None:
    key = new_key()
    uris = [x509.UniformResourceIdentifier(f"{TOKEN_URI}ffffffffffffffff"), x509.RFC822Name("a@b.example")]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(x509.SubjectAlternativeName(uris), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    for role in TokenRole:
        certificate = _sign(request, role)
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        assert list(_names(certificate)) == [x509.UniformResourceIdentifier(f"{TOKEN_URI}{TOKEN_ID}")]
        assert ExtendedKeyUsageOID.CODE_SIGNING not in _purposes(certificate)


def test_a_request_with_a_wrong_signature_is_refused() -> None:
    request = x509.load_pem_x509_csr(create_request(new_key(), "web"))
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-4] ^= 1
    forged = x509.load_der_x509_csr(bytes(der))
    with pytest.raises(Invalid, match="signed with the key"):
        _sign(forged.public_bytes(Encoding.PEM))


def _request_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest).public_bytes(Encoding.PEM)
    )


@pytest.mark.parametrize("weak", [lambda: rsa.generate_private_key(65_537, 1_024), lambda: _old_curve()])
def test_weak_keys_get_no_certificate(weak: object) -> None:
    assert callable(weak)
    with pytest.raises(Invalid, match="must have an EC key on P-256"):
        _sign(_request_of(weak()))


def _old_curve() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP192R1())


def test_other_usual_keys_get_certificates() -> None:
    keys = rsa.generate_private_key(65_537, 2_048), ed25519.Ed25519PrivateKey.generate()
    for key in (*keys, ec.generate_private_key(ec.SECP384R1())):
        certificate = _sign(_request_of(key))
        assert certificate.public_key() == key.public_key()
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.key_encipherment == isinstance(key, rsa.RSAPrivateKey)


def test_a_certificate_lives_as_long_as_its_role_says_and_never_longer_than_its_authority() -> None:
    for role, lifetime in LIFETIMES.items():
        certificate = _sign(create_request(new_key(), "web"), role)
        assert certificate.not_valid_after_utc.timestamp() == NOW + lifetime
        assert certificate.not_valid_before_utc.timestamp() == NOW - BACKDATED
    end = NOW + AUTHORITY_LIFETIME
    assert AUTHORITY.expires == end
    assert _sign(create_request(new_key(), "web"), now=end - 60.0).not_valid_after_utc.timestamp() == end
    with pytest.raises(Invalid, match="adsum init --renew"):
        _sign(create_request(new_key(), "web"), now=end)


def test_a_renewed_authority_has_the_same_hash_and_verifies_what_was_signed_before() -> None:
    renewed = AUTHORITY.renewed(NOW + 1_000_000.0)
    assert renewed.hash == AUTHORITY.hash
    assert renewed.certificate.serial_number != AUTHORITY.certificate.serial_number
    certificate = _sign(create_request(new_key(), "web"))
    assert renewed.has_signed(certificate)
    assert not Authority.create(NOW).has_signed(certificate)
    assert certificate_hash(certificate) != AUTHORITY.hash


def test_an_authority_of_the_same_name_proves_nothing() -> None:
    other = Authority.create(NOW)
    chain = other.sign(create_request(new_key(), "x"), name="x", token_id=TOKEN_ID, role=TokenRole.NODE, now=NOW)
    assert not AUTHORITY.has_signed(x509.load_pem_x509_certificate(chain))


def test_an_authority_is_read_back_and_signs_only_with_its_key() -> None:
    loaded = Authority.load(AUTHORITY.certificate_pem(), AUTHORITY.key_pem())
    assert loaded.can_sign
    assert loaded.hash == AUTHORITY.hash
    without = Authority.load(AUTHORITY.certificate_pem())
    assert not without.can_sign
    with pytest.raises(Invalid, match="no key on this node"):
        without.sign(create_request(new_key(), "x"), name="x", token_id=TOKEN_ID, role=TokenRole.NODE, now=NOW)
    with pytest.raises(Invalid, match="no key"):
        without.renewed(NOW)


def test_an_authority_needs_its_own_key_and_the_certificate_of_an_authority() -> None:
    with pytest.raises(Invalid, match="the key that belongs"):
        Authority.load(AUTHORITY.certificate_pem(), encode_key(new_key()))
    key = new_key()
    leaf = AUTHORITY.sign(create_request(key, "x"), name="x", token_id=TOKEN_ID, role=TokenRole.NODE, now=NOW)
    with pytest.raises(Invalid, match="certificate of an authority"):
        Authority.load(leaf, encode_key(key))
    for wrong in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Invalid, match="PEM"):
            Authority.load(wrong)


def test_a_wrong_key_file_is_named_and_not_quoted() -> None:
    secret = rsa.generate_private_key(65_537, 2_048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for wrong in (b"secret words", secret):
        with pytest.raises(Invalid) as caught:
            Authority.load(AUTHORITY.certificate_pem(), wrong)
        assert wrong.decode()[30:60] not in str(caught.value) or not wrong.decode()[30:60]


@pytest.mark.parametrize(
    ("request_pem", "words"),
    [
        (b"", "PKCS #10"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "PKCS #10"),
        (b"x" * (MAX_REQUEST_BYTES + 1), "at most"),
        (create_request(new_key(), "x", [f"n{n}.example" for n in range(MAX_REQUEST_NAMES + 1)]), "host names"),
        (create_request(new_key(), "x", ["*.example"]), "host name"),
        (create_request(new_key(), "x", ["10.0.0.1"]), "host name"),
        (create_request(new_key(), "x", ["a b"]), "host name"),
        (create_request(new_key(), "x", [], [ipaddress.IPv4Address("0.0.0.0")]), "addresses of hosts"),
        (create_request(new_key(), "x", [], [ipaddress.IPv6Address("ff02::1")]), "addresses of hosts"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_request_is_refused(request_pem: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        _sign(request_pem, TokenRole.NODE)
    assert caught.value.field == "certificate_request"


def test_openssl_accepts_the_certificates_strictly(tmp_path: Path) -> None:
    now = datetime.now(UTC).timestamp()
    authority, key = Authority.create(now), new_key()
    chain = authority.sign(
        create_request(key, "n1", ["localhost"]), name="n1", token_id=TOKEN_ID, role=TokenRole.NODE, now=now
    )
    files = tmp_path / "node.pem", tmp_path / "node.key"
    files[0].write_bytes(chain)
    files[1].write_bytes(encode_key(key))
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.load_cert_chain(*files)
        context.load_verify_locations(cadata=authority.certificate_pem().decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    server.verify_mode = ssl.CERT_REQUIRED
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    right = server.wrap_bio(outgoing, incoming, server_side=True)
    finished: set[ssl.SSLObject] = set()
    for _ in range(5):
        for side in (left, right):
            try:
                side.do_handshake()
                finished.add(side)
            except ssl.SSLWantReadError:
                pass
    assert finished == {left, right}
    peer = right.getpeercert(binary_form=True)
    assert peer is not None
    assert token_id_of(x509.load_der_x509_certificate(peer)) == TOKEN_ID
