"""The names and addresses by which a node is reached, which its certificate must have."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from adsum.certificates.lookups import look_up
from adsum.certificates.requests import MAX_REQUEST_NAMES, IpAddress, check_dns_name
from adsum.core.errors import Invalid
from adsum.core.validation import quoted

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
"""Names that the certificate of every node has, for callers on its host."""
MAX_FOUND_ADDRESSES: Final = 32
"""Addresses of this host that a certificate has. Further ones are left out: `--tls-name` adds the ones that matter."""


@dataclass(frozen=True, slots=True)
class ServerNames:
    """Host names and addresses of one certificate, sorted, each once."""

    dns_names: Sequence[str] = ()
    addresses: Sequence[IpAddress] = ()

    @staticmethod
    def of(names: Iterable[str], field: str = "tls_name") -> ServerNames:
        """Returns the names in texts. Raises `Invalid` for a text that is neither a host name nor an address."""
        dns_names: set[str] = set()
        addresses: set[IpAddress] = set()
        for name in names:
            address = parse_address(name)
            if address is not None:
                if address.is_unspecified or address.is_multicast:
                    raise Invalid(field, f"must be an address that callers can reach, not {quoted(name)}")
                addresses.add(address)
            else:
                check_dns_name(field, name)
                dns_names.add(name.lower())
        if len(dns_names) + len(addresses) > MAX_REQUEST_NAMES:
            raise Invalid(field, f"must be at most {MAX_REQUEST_NAMES} names together with those that were found")
        return ServerNames(tuple(sorted(dns_names)), tuple(sorted(addresses, key=lambda one: (one.version, int(one)))))

    @staticmethod
    def of_certificate(certificate: x509.Certificate) -> ServerNames:
        """Returns the names of a certificate."""
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return ServerNames()
        addresses = [
            address
            for address in names.get_values_for_type(x509.IPAddress)
            if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
        ]
        return ServerNames(
            tuple(sorted(names.get_values_for_type(x509.DNSName))),
            tuple(sorted(addresses, key=lambda one: (one.version, int(one)))),
        )

    def includes(self, other: ServerNames) -> bool:
        """Returns whether all names of the other ones are among these."""
        return {*other.dns_names} <= {*self.dns_names} and {*other.addresses} <= {*self.addresses}

    def merged(self, other: ServerNames) -> ServerNames:
        """Returns these names and the other ones; without the other ones if all of them are too many."""
        try:
            return ServerNames.of([*self.texts(), *other.texts()])
        except Invalid:
            return self

    def texts(self) -> list[str]:
        """Returns the names and addresses as texts."""
        return [*self.dns_names, *map(str, self.addresses)]


def parse_address(text: str) -> IpAddress | None:
    """Returns the IP address in a text, with or without brackets; None if it is no address."""
    try:
        return ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None


def find_host_names() -> list[str]:
    """Returns the name of this host, and its name with the domain. Texts that are no host names are left out.

    May wait for a name server, for a bounded time; then the name with the domain is left out.
    """
    own = socket.gethostname()
    return [name for name in dict.fromkeys((own, look_up(socket.getfqdn, own))) if _is_dns_name(name)]


def _is_dns_name(name: str) -> bool:
    try:
        check_dns_name("name", name)
    except Invalid:
        return False
    return True


def server_names(
    further: Collection[str], host_names: Iterable[str], addresses: Iterable[str], field: str = "tls_name"
) -> ServerNames:
    """Returns the names for the certificate of a node: those that were found on its host, and `further` ones.

    Addresses that only this host or this link reaches are left out, except for those of `LOCAL_NAMES`. Raises `Invalid`
    for a wrong name in `further`.
    """
    found = [address for text in addresses if (address := parse_address(text)) is not None]
    reachable = dict.fromkeys(
        str(one)
        for one in found
        if not (one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast)
    )
    return ServerNames.of([*LOCAL_NAMES, *host_names, *list(reachable)[:MAX_FOUND_ADDRESSES], *further], field)
