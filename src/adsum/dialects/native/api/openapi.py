"""The OpenAPI 3.1 document, derived from the table of operations."""

from __future__ import annotations

import inspect
import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import Struct

from adsum import wire
from adsum.core.access.actions import ACCESS_RULES, Action, Subject
from adsum.core.access.scopes import Right
from adsum.dialects.native.api.operation import ApiOperation, QueryParameter
from adsum.dialects.native.api.operation_table import OPERATIONS
from adsum.dialects.native.api.parameters import PATH_PARAMETER_TYPES
from adsum.version import __version__

BEARER, CERTIFICATE = "bearer", "certificate"
SECURITY_SCHEMES: Final = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of this registry, or a JWT of an issuer that it accepts.",
    },
    CERTIFICATE: {
        "type": "mutualTLS",
        "description": "A client certificate of the registry's authority, or of one that it accepts.",
    },
}
WITH_OR_WITHOUT_PROOF: Final[list[dict[str, list[str]]]] = [{BEARER: []}, {CERTIFICATE: []}, {}]
"""Callers without a proof have the scopes of the token `anonymous`; on a registry that is open to all, every scope."""
SUBJECTS: Final = {
    Subject.NOTHING: "nothing",
    Subject.SERVICES: "{right}:SERVICE for every service that the request names",
    Subject.OWN_INSTANCES: "{right}:SERVICE for instances that the caller registered; operate:SERVICE for others",
    Subject.VISIBLE: "{right}:SERVICE for at least one service; the response has only such services",
    Subject.REGISTRY: "{right}:*",
    Subject.CALLER: "a token",
}
"""The scope that an action needs, by what it concerns."""

_REF: Final = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"{(\w+)}")

COMMON_PROBLEMS: Final = (400, 404, 405, 500)
"""Error statuses of every operation: any request may be malformed, or have a wrong path or method."""
HEADER_TYPES: Final = {wire.ACTOR_HEADER: wire.Text, "Last-Event-ID": wire.PositionText}
BODY_PROBLEMS: Final = (408, 413, 415)
"""Further error statuses of operations with a body."""
WITHOUT_ACTOR: Final = frozenset({"renew", "renew_many", "acknowledge", "update_watch", "check_route", "say_goodbye"})
"""Operations other than GET that record no actor."""
RESPONSE_HEADERS: Final = {
    wire.EPOCH_HEADER: ("string", "The epoch: the history to which revisions belong"),
    wire.REVISION_HEADER: ("integer", "The revision of the catalog"),
    wire.AGE_HEADER: ("number", "Age of the response: seconds since it was known to be the newest state"),
    "ETag": ("string", "The entity tag, for If-None-Match"),
}


def openapi_document() -> dict[str, Any]:
    """Returns the document as JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Adsum registry",
            "version": __version__,
            "description": "Register instances, renew their leases, read and watch services. "
            f"The header {wire.PROTOCOL_HEADER} of every response states the version of this protocol.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _components(), "securitySchemes": SECURITY_SCHEMES},
    }


def _components() -> dict[str, Any]:
    kinds: list[Any] = [wire.Problem]
    for operation in OPERATIONS:
        kinds.extend(body for body in operation.responses.values() if isinstance(body, type))
        kinds.extend([operation.body] if operation.body else [])
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    for schema in components.values():
        if "description" in schema:  # A docstring, with the indentation of its lines.
            schema["description"] = inspect.cleandoc(schema["description"])
    return components


def _operation(operation: ApiOperation) -> dict[str, Any]:
    documented: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "x-action": operation.action.value,
        "x-scope": required_scope(operation.action),
        "security": [] if operation.is_public else WITH_OR_WITHOUT_PROOF,
    }
    if operation.description:
        documented["description"] = operation.description
    parameters = [_path_parameter(name) for name in _IN_PATH.findall(operation.path)]
    parameters += [_query_parameter(parameter) for parameter in operation.query]
    parameters += [_header_parameter(name, description) for name, description in _headers(operation)]
    if parameters:
        documented["parameters"] = parameters
    if operation.body:
        documented["requestBody"] = {"required": True, "content": _json_content(_schema(operation.body))}
    documented["responses"] = {str(status): response for status, response in _responses(operation).items()}
    return documented


def _responses(operation: ApiOperation) -> dict[int, Any]:
    responses: dict[int, Any] = {}
    for status, body in operation.responses.items():
        responses[status] = {"description": HTTPStatus(status).phrase, **_content(body)}
        if 304 in operation.responses:
            responses[status]["headers"] = {
                name: {"schema": {"type": kind}, "description": description}
                for name, (kind, description) in RESPONSE_HEADERS.items()
            }
    problems = {
        *COMMON_PROBLEMS,
        *_refusals(operation),
        *operation.problems,
        *(BODY_PROBLEMS if operation.body else ()),
    }
    for status in sorted(problems - responses.keys()):
        content = {"application/problem+json": {"schema": _schema(wire.Problem)}}
        responses[status] = {"description": HTTPStatus(status).phrase, "content": content}
    return responses


def _refusals(operation: ApiOperation) -> tuple[int, ...]:
    """Returns the error statuses of access control."""
    if operation.is_public:
        return ()
    return (401,) if ACCESS_RULES[operation.action].subject is Subject.NOTHING else (401, 403)


def required_scope(action: Action) -> str:
    """Returns which scope an action needs, for people."""
    subject, right = ACCESS_RULES[action]
    if right in (Right.ADMIN, Right.NODE):
        return right.value
    return SUBJECTS[subject].format(right=right.value if right is not None else "")


def _content(body: type[Struct] | str | None) -> dict[str, Any]:
    if body is None:
        return {}
    if isinstance(body, str):
        return {"content": {body: {"schema": {}}}}
    return {"content": _json_content(_schema(body))}


def _json_content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _schema(kind: Any) -> dict[str, Any]:
    """Returns the schema of a type: for a struct, a reference to its component."""
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema


def _inline_schema(kind: Any) -> dict[str, Any]:
    """Returns the schema of a type without references."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template=_REF)
    return components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _inline_schema(PATH_PARAMETER_TYPES[name])}


def _query_parameter(parameter: QueryParameter) -> dict[str, Any]:
    schema = _inline_schema(parameter.type)
    shape: dict[str, Any] = {"name": parameter.name, "in": "query", "description": parameter.description}
    if parameter.repeatable:
        return {**shape, "schema": {"type": "array", "items": schema}, "style": "form", "explode": True}
    if parameter.keyed:
        entries = {"type": "object", "propertyNames": {"pattern": "^[^\\[\\]]+$"}, "additionalProperties": schema}
        return {**shape, "schema": entries, "style": "deepObject", "explode": True}
    return {**shape, "schema": schema}


def _headers(operation: ApiOperation) -> list[tuple[str, str]]:
    headers = []
    if operation.method != "GET" and operation.name not in WITHOUT_ACTOR:
        headers.append((wire.ACTOR_HEADER, "The actor to record; by default the address of the caller"))
    if 304 in operation.responses:
        headers.append(("If-None-Match", "The ETag of the response that the caller has"))
    if operation.name == "watch":
        headers.append(("Last-Event-ID", "EPOCH:REVISION to resume from"))
    return headers


def _header_parameter(name: str, description: str) -> dict[str, Any]:
    schema = _inline_schema(HEADER_TYPES.get(name, str))
    return {"name": name, "in": "header", "description": description, "schema": schema}
