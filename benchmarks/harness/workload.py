"""The registrations of the benchmarks: typical instances of about 190 bytes of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from adsum.core.catalog.changes import Change
from adsum.core.model import Endpoint, Instance, Listing, Registration, freeze
from adsum.core.provenance import Cause, Provenance

SERVICE: Final = "orders"
ZONES: Final = ("eu-1a", "eu-1b", "eu-1c")


def body(number: int, **more: object) -> bytes:
    """Encodes a registration as JSON; `more` are further fields, or other values."""
    return json.dumps(
        {
            "address": address(number),
            "port": 8000,
            "zone": ZONES[number % 3],
            "tags": ["v2"],
            "metadata": {"version": "2.3.1"},
            "ttl": 3_600.0,
            **more,
        }
    ).encode()


def put(port: int, service: str, id: str, registration: bytes, headers: bytes = b"") -> bytes:
    """Encodes the HTTP/1.1 request of a registration. `headers` are further whole lines."""
    head = (
        f"PUT /api/v1/services/{service}/instances/{id} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(registration)}\r\n"
    )
    return b"%b%b\r\n%b" % (head.encode(), headers, registration)


def post(port: int, path: str, body: bytes, headers: bytes = b"") -> bytes:
    """Encodes an HTTP/1.1 request with a body of JSON. `headers` are further whole lines."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n".encode()
    return b"%bcontent-length: %d\r\n%b\r\n%b" % (head, len(body), headers, body)


def renewal(port: int, service: str, id: str, headers: bytes = b"") -> bytes:
    """Encodes the HTTP/1.1 request of a renewal. `headers` are further whole lines."""
    head = f"POST /api/v1/services/{service}/instances/{id}/renew HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    return b"%bcontent-length: 0\r\n%b\r\n" % (head.encode(), headers)


def puts(node_port: int, names: Iterator[tuple[str, str]], headers: bytes = b"", **more: object) -> Iterator[bytes]:
    """Yields the HTTP/1.1 requests that register these (service, id) at the node with that port.

    `headers` are further whole lines, and `more` further fields of the registrations.
    """
    for number, (service, id) in enumerate(names):
        yield put(node_port, service, id, body(number, **more), headers)


def spread(count: int, services: int) -> Iterator[tuple[str, str]]:
    """Returns (service, id) of `count` instances in this many services, service by service."""
    size = max(1, count // services)
    return ((f"s-{number // size:04}", f"i-{number:06}") for number in range(count))


def instance(number: int, service: str = SERVICE) -> Instance:
    """Returns the instance of `body` as a value of the model."""
    return Instance(
        service,
        f"i-{number:06}",
        address(number),
        8000,
        zone=ZONES[number % 3],
        tags=("v2",),
        metadata=freeze({"version": "2.3.1"}),
    )


def endpoint(number: int, service: str = SERVICE) -> Endpoint:
    return Endpoint(instance(number, service))


def listing(number: int, service: str = SERVICE) -> Listing:
    """Returns the listing of an instance."""
    provenance = Provenance(Cause.REGISTERED, "127.0.0.1", at=1.0)
    return Listing(Registration(instance(number, service), ttl=60.0), provenance, since=1.0)


def change(listed: Listing) -> Change:
    return Change(listed.key, listed, listed.provenance)


def address(number: int) -> str:
    """Returns an IP address in 10.0.0.0/8."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
