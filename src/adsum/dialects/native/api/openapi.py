"""The OpenAPI 3.1 document, derived from the table of routes."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import Struct

from adsum import wire
from adsum.dialects.native.api.operation_table import (
    OPERATIONS,
    PATH_PARAMETER_TYPES,
    ApiOperation,
    PositionText,
    QueryParameter,
)
from adsum.version import __version__

_REF: Final = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"{(\w+)}")

COMMON_PROBLEMS: Final = (400, 404, 405, 500)
"""What any operation may answer, because any request may be malformed or misdirected."""
HEADER_TYPES: Final = {wire.ACTOR_HEADER: wire.Text, "Last-Event-ID": PositionText}
BODY_PROBLEMS: Final = (408, 413, 415)
RESPONSE_HEADERS: Final = {
    wire.EPOCH_HEADER: ("string", "The history that the revisions belong to"),
    wire.REVISION_HEADER: ("integer", "The catalog's revision"),
    wire.AGE_HEADER: ("number", "Seconds since this was known to be the newest"),
    "ETag": ("string", "For If-None-Match"),
}


def openapi_document() -> dict[str, Any]:
    """The document as JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for route in OPERATIONS:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Adsum registry",
            "version": __version__,
            "description": "Register instances, keep their leases, read and watch services. "
            f"Every answer says in the header {wire.PROTOCOL_HEADER} which version of this protocol it is in.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _components()},
    }


def _components() -> dict[str, Any]:
    kinds: list[Any] = [wire.Problem]
    for route in OPERATIONS:
        kinds.extend(answer for answer in route.responses.values() if isinstance(answer, type))
        kinds.extend([route.body] if route.body else [])
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    return components


def _operation(route: ApiOperation) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    if route.description:
        operation["description"] = route.description
    parameters = [_path_parameter(name) for name in _IN_PATH.findall(route.path)]
    parameters += [_query_parameter(each) for each in route.query]
    parameters += [_header_parameter(name, text) for name, text in _headers(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        operation["requestBody"] = {"required": True, "content": _json(_schema(route.body))}
    operation["responses"] = {str(code): response for code, response in _responses(route).items()}
    return operation


def _responses(route: ApiOperation) -> dict[int, Any]:
    responses: dict[int, Any] = {}
    for code, answer in route.responses.items():
        responses[code] = {"description": HTTPStatus(code).phrase, **_content(answer)}
        if 304 in route.responses:
            responses[code]["headers"] = {
                name: {"schema": {"type": kind}, "description": text} for name, (kind, text) in RESPONSE_HEADERS.items()
            }
    for code in sorted({*COMMON_PROBLEMS, *route.problems, *(BODY_PROBLEMS if route.body else ())} - responses.keys()):
        problem = {"application/problem+json": {"schema": _schema(wire.Problem)}}
        responses[code] = {"description": HTTPStatus(code).phrase, "content": problem}
    return responses


def _content(answer: type[Struct] | str | None) -> dict[str, Any]:
    if answer is None:
        return {}
    if isinstance(answer, str):
        return {"content": {answer: {"schema": {}}}}
    return {"content": _json(_schema(answer))}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _schema(kind: Any) -> dict[str, Any]:
    """A reference for a struct, the schema itself for a plain type."""
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema


def _plain(kind: Any) -> dict[str, Any]:
    """The schema with everything in it, for parameters."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template=_REF)
    return components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _plain(PATH_PARAMETER_TYPES[name])}


def _query_parameter(parameter: QueryParameter) -> dict[str, Any]:
    schema = _plain(parameter.type)
    shape: dict[str, Any] = {"name": parameter.name, "in": "query", "description": parameter.description}
    if parameter.repeatable:
        return {**shape, "schema": {"type": "array", "items": schema}, "style": "form", "explode": True}
    if parameter.keyed:
        pairs = {"type": "object", "propertyNames": {"pattern": "^[^\\[\\]]+$"}, "additionalProperties": schema}
        return {**shape, "schema": pairs, "style": "deepObject", "explode": True}
    return {**shape, "schema": schema}


def _headers(route: ApiOperation) -> list[tuple[str, str]]:
    headers = []
    if route.method != "GET" and not route.name.startswith(("renew", "acknowledge", "check", "say_goodbye")):
        headers.append((wire.ACTOR_HEADER, "Who asks, for the record; else the caller's address"))
    if 304 in route.responses:
        headers.append(("If-None-Match", "The ETag of what the caller has"))
    if route.name == "watch":
        headers.append(("Last-Event-ID", "EPOCH:REVISION to resume from"))
    return headers


def _header_parameter(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": _plain(HEADER_TYPES.get(name, str))}
