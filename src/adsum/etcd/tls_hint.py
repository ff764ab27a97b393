"""Hints about wrong TLS options, derived from the texts of gRPC's errors."""

from __future__ import annotations

from typing import NamedTuple

from adsum.etcd.address import EtcdAddress


class TlsHint(NamedTuple):
    """A sentence about the options of an address. `is_certain`: another attempt can't succeed with these options."""

    text: str
    is_certain: bool


def tls_hint(address: EtcdAddress, error: str) -> TlsHint | None:
    """Returns the hint for an error of a connection; None if the error is not about TLS.

    A hint is not certain if a member that is being stopped can cause the same error.
    """
    if not address.tls:
        if "Socket closed" in error or "Connection reset" in error:
            text = "it closes connections, so it probably speaks TLS: add tls=true, and ca=FILE for a private authority"
            return TlsHint(text, is_certain=False)
        return None
    if "CERTIFICATE_VERIFY_FAILED" in error:
        if address.ca:
            return TlsHint(f"its certificate can't be verified with {address.ca}", is_certain=True)
        return TlsHint("its certificate is not of a public authority: add ca=FILE", is_certain=True)
    if "security handshaker" in error:
        return TlsHint("ca, cert and key must be files in PEM, and the key must be that of cert", is_certain=True)
    if "TSI_DATA_CORRUPTED" in error or "ALERT" in error:
        wanted = (
            "does not accept the certificate in cert"
            if address.cert
            else "wants a client's certificate: add cert and key"
        )
        return TlsHint(f"it {wanted}", is_certain=True)
    if "Handshake read failed" in error or "WRONG_VERSION_NUMBER" in error:
        return TlsHint("it probably speaks no TLS: leave out tls, ca, cert and key", is_certain=False)
    return None
