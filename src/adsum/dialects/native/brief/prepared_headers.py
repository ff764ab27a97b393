"""The headers of requests, judged once for all requests that have the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from adsum.access.control import AccessControl, RememberedCaller
from adsum.core.errors import AdsumError
from adsum.dialects.native.asgi import Headers, first_header
from adsum.dialects.native.requests.api_request import FORWARDED_TO, claimed_actor, is_json, request_credentials


@dataclass(frozen=True, slots=True)
class PreparedHeaders:
    """What brief requests need of their headers."""

    caller: RememberedCaller
    entity_tags: str
    """The entity tags of all If-None-Match headers; "" if there is none."""
    is_json: bool
    """True if the content type of the body is JSON."""
    claimed_actor: str | None
    """The actor that the request names without proof, "" for none; None if it is not well-formed."""
    forwarded_to: str | None
    """The id of the node to which another node forwards the request; None if it does not claim to be forwarded."""


def prepare_headers(access: AccessControl, headers: Headers, certificate: bytes) -> PreparedHeaders:
    """Returns the judgement of the headers. `certificate` is the client certificate of the connection."""
    tags = b",".join([value for name, value in headers if name == b"if-none-match"])
    try:
        claimed = claimed_actor(headers)
    except AdsumError:
        claimed = None
    return PreparedHeaders(
        caller=access.remember(request_credentials(headers, certificate, "")),
        entity_tags=tags.decode("latin-1"),
        is_json=is_json(headers),
        claimed_actor=claimed,
        forwarded_to=first_header(headers, FORWARDED_TO),
    )
