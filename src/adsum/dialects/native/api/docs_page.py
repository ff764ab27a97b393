"""The docs page: the OpenAPI document as one HTML page, without scripts or external resources."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #444); --soft: light-dark(#f6f6f4, #222); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; } section { border-top: 1px solid var(--line); padding: .5rem 0 1rem; }
code { font: .9em ui-monospace, monospace; background: var(--soft); padding: .1em .3em; border-radius: .2em; }
table { border-collapse: collapse; width: 100%; font-size: .92em; } th { text-align: left; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; vertical-align: top; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
"""


def docs_page(document: dict[str, Any]) -> bytes:
    """Returns the page, in UTF-8."""
    title = escape(document["info"]["title"])
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
            "<meta name=viewport content='width=device-width'>",
            f"<style>{_STYLE}</style>",
            f"<h1>{title} <small>{escape(document['info']['version'])}</small></h1>",
            f"<p>{escape(document['info']['description'])} For programs: ",
            "<a href='/api/v1/openapi.json'>openapi.json</a>.</p>",
            "<h2>Operations</h2>",
            f"<p>{_access(document['components']['securitySchemes'])}</p>",
            *operations,
            "<h2>Schemas</h2>",
            *schemas,
            "</html>\n",
        ]
    ).encode()


def _access(schemes: dict[str, Any]) -> str:
    """Returns how callers prove who they are."""
    ways = " ".join(escape(scheme["description"]) for scheme in schemes.values())
    return (
        f"A caller proves who it is in one of these ways. {ways} Without a proof it has the scopes of the token "
        "<code>anonymous</code>; on a registry that is open to all, every scope."
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [
        f"<section id='{escape(operation['operationId'])}'>",
        f"<h3><span class=method>{method.upper()}</span> <code>{escape(path)}</code></h3>",
        f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>",
        f"<p>Action <code>{escape(operation['x-action'])}</code>. Needs: {escape(operation['x-scope'])}.</p>",
    ]
    if "requestBody" in operation:
        lines.append(f"<p>Body: {_kind(operation['requestBody']['content']['application/json']['schema'])}</p>")
    if "parameters" in operation:
        rows = [
            (
                f"<code>{escape(parameter['name'])}</code>",
                parameter["in"],
                _kind(parameter["schema"]),
                escape(parameter.get("description", "")),
            )
            for parameter in operation["parameters"]
        ]
        lines.append(_table(("parameter", "in", "type", ""), rows))
    responses = [
        (status, escape(response["description"]), _body(response))
        for status, response in operation["responses"].items()
    ]
    lines.append(_table(("status", "", "body"), responses))
    return "\n".join([*lines, "</section>"])


def _body(response: dict[str, Any]) -> str:
    return " ".join(
        f"{escape(media)} {_kind(content['schema'])}" for media, content in response.get("content", {}).items()
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(field)}</code>{'' if field in required else ' <small>optional</small>'}",
            _kind(kind),
            escape(repr(kind["default"])) if "default" in kind else "",
        )
        for field, kind in schema.get("properties", {}).items()
    ]
    values = ", ".join(f"<code>{escape(str(value))}</code>" for value in schema.get("enum", ()))
    return "\n".join(
        [
            f"<section id='{escape(name)}'><h3>{escape(name)}</h3>",
            f"<p>{escape(schema.get('description', ''))} {values}</p>",
            _table(("field", "type", "default"), rows) if rows else "",
            "</section>",
        ]
    )


def _kind(schema: dict[str, Any]) -> str:
    """Returns a short description of a schema, with links to the components that it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items') or {})}"
    if schema.get("type") == "object":
        return f"map to {_kind(schema.get('additionalProperties') or {})}"
    return " ".join(filter(None, (str(schema.get("type", "")), _bounds(schema))))


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = [f"{low}…{high}" if high is not None else f"≥ {low}"] if low is not None else []
    if "maxLength" in schema:
        parts.append(f"at most {schema['maxLength']} characters")
    if "pattern" in schema:
        parts.append(f"<code>{escape(schema['pattern'])}</code>")
    return " ".join(parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{name}" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return f"<table><tr>{cells}{lines}</table>"
