"""The lives of the certificates that a node uses: for warnings before they expire, its status and its metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from adsum.certificates.expiry import CertificateLife, certificate_life
from adsum.node_security.authorities import ExternalAuthority, RegistryAuthority
from adsum.node_security.server_certificates import ServedCertificates

if TYPE_CHECKING:
    from prometheus_client.core import Metric

RENEW_AUTHORITY: Final = "run `adsum init --renew` on the node that has the key of the authority"
RENEW_NODE: Final = f"if it stays so, {RENEW_AUTHORITY}"
REPLACE_OWN: Final = "write a new one to the files of --tls-cert and --tls-key; they are read again by themselves"
REPLACE_CLIENT_AUTHORITY: Final = "write a new one to the file of --tls-client-ca; it is read again by itself"


def certificate_lives(
    served: ServedCertificates, authority: RegistryAuthority | ExternalAuthority, *, is_renewed: bool
) -> list[CertificateLife]:
    """Returns the lives of all certificates in use. Of the authorities of clients it is the one that expires first.

    `is_renewed`: the node, or another one, renews the certificate that is served. Operators renew their own.
    """
    leaf = served.pair.leaf
    if isinstance(authority, RegistryAuthority):
        own = authority.authority.certificate
        lives = [
            certificate_life(leaf, "node", RENEW_NODE, is_renewed=is_renewed),
            certificate_life(own, "authority", RENEW_AUTHORITY),
        ]
        further = [one for one in served.authorities if one != own]
    else:
        lives = [certificate_life(leaf, "server", REPLACE_OWN)]
        further = [*served.authorities]
    if further:
        first = min(further, key=lambda one: one.not_valid_after_utc)
        lives.append(certificate_life(first, "client-authority", REPLACE_CLIENT_AUTHORITY))
    return lives


def expiry_metric(lives: Iterable[CertificateLife]) -> Metric:
    """Returns the metric with the time at which each certificate expires."""
    expiry = GaugeMetricFamily(
        "adsum_certificate_expiry_seconds",
        "Time at which a certificate of this node expires, in seconds since 1970",
        labels=["certificate"],
    )
    for life in lives:
        expiry.add_metric([life.name], life.expires)
    return expiry
