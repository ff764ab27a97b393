"""The bodies of a request that registers many instances, and of its response.

The docstrings of these classes are descriptions in the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import Invalid
from adsum.core.model import Registration
from adsum.wire.codec import decode
from adsum.wire.protocol import MAX_REGISTRATIONS, Id, Name
from adsum.wire.requests import RegistrationBody, RequestBody
from adsum.wire.responses import Problem, ResponseBody


class NamedRegistrationBody(RegistrationBody, frozen=True, kw_only=True):
    """A registration with the service and the id of the instance. See `RegistrationBody` for the other fields."""

    service: Name
    id: Id

    @staticmethod
    def from_registration(registration: Registration, takeover: Takeover = Takeover.USUAL) -> NamedRegistrationBody:
        instance = registration.instance
        fields = msgspec.structs.asdict(RegistrationBody.from_registration(registration, takeover))
        return NamedRegistrationBody(service=instance.service, id=instance.id, **fields)

    def register(self, peer: str) -> Registration:
        """Returns the registration. `peer` is the address of the instance if the body has none. Raises `Invalid`."""
        return self.to_registration(self.service, self.id, peer)


class RegisterBody(RequestBody, frozen=True):
    """Instances to register in one request."""

    registrations: Annotated[list[NamedRegistrationBody], Meta(max_length=MAX_REGISTRATIONS)]


class _UnreadBody(RequestBody, frozen=True):
    """A `RegisterBody` whose registrations are not decoded yet."""

    registrations: Annotated[list[msgspec.Raw], Meta(max_length=MAX_REGISTRATIONS)]


class RegistrationAnswer(ResponseBody, frozen=True):
    """The answer to one of many registrations.

    `status`, `revision` and `ttl` are those of the response to a registration by itself: 201 or 200, or the status of
    the `problem`. `field` of a problem is the path from the beginning of the body. `retry_after`: seconds after which
    it may succeed without a change.
    """

    status: int
    revision: int = 0
    ttl: float | None = None
    problem: Problem | None = None
    retry_after: float | None = None


class RegistrationResult(ResponseBody, frozen=True):
    """The result of many registrations: how many instances are registered, and an answer to each, in their order."""

    epoch: str
    revision: int
    registered: int
    answers: list[RegistrationAnswer]


def split_registrations(body: bytes) -> list[bytes]:
    """Returns the registrations in a `RegisterBody`, each as JSON that is not decoded yet.

    Raises `Invalid`, with the field "" if the body is not JSON.
    """
    return [bytes(registration) for registration in decode(body, _UnreadBody).registrations]


def decode_registration(registration: bytes) -> NamedRegistrationBody:
    """Decodes and validates one registration of `split_registrations`. Raises `Invalid`."""
    try:
        return decode(registration, NamedRegistrationBody)
    except Invalid as error:
        # It is JSON, but no object, or it has a text that is not UTF-8.
        raise error if error.field else Invalid("", error.problem.replace("the body", "it")) from None
