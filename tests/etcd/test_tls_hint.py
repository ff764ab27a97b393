"""The hints at wrong TLS options, from the texts of gRPC's errors."""

from __future__ import annotations

import pytest

from adsum.etcd.address import EtcdAddress
from adsum.etcd.tls_hint import tls_hint

PLAIN = EtcdAddress(("e1:2379",))
TLS = EtcdAddress(("e1:2379",), tls=True)
WITH_CA = EtcdAddress(("e1:2379",), tls=True, ca="ca.pem")
WITH_CERT = EtcdAddress(("e1:2379",), tls=True, ca="ca.pem", cert="c.pem", key="c.key")


@pytest.mark.parametrize(
    ("address", "error", "text", "certain"),
    [
        (PLAIN, "last error: UNAVAILABLE: ipv4:10.0.0.1:2379: Socket closed", "speaks TLS: add tls=true", False),
        (TLS, "Handshake read failed (Socket closed)", "speaks no TLS: leave out tls", False),
        (TLS, "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer", "add ca=FILE", True),
        (WITH_CA, "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to", "can't be verified with ca.pem", True),
        (WITH_CA, "Unwrap failed (TSI_DATA_CORRUPTED)", "wants a client's certificate: add cert and key", True),
        (WITH_CERT, "Unwrap failed (TSI_DATA_CORRUPTED)", "does not accept the certificate in cert", True),
        (WITH_CERT, "Failed to create security handshaker.", "the key must be that of cert", True),
    ],
)
def test_an_error_about_tls_names_the_option_to_change(
    address: EtcdAddress, error: str, text: str, certain: bool
) -> None:
    hint = tls_hint(address, error)
    assert hint is not None
    assert text in hint.text
    assert hint.is_certain is certain


@pytest.mark.parametrize("address", [PLAIN, TLS])
def test_an_unreachable_etcd_gets_no_hint(address: EtcdAddress) -> None:
    assert tls_hint(address, "last error: UNKNOWN: connect: Connection refused (111)") is None
    assert tls_hint(address, "etcd does not answer in time") is None
