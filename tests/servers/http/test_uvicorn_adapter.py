"""uvicorn still has every private part that the adapters use, and no other module uses one."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import adsum
from adsum.servers.http import connection, uvicorn_adapter, uvicorn_parts, uvicorn_server
from adsum.servers.http.uvicorn_parts import PRIVATE_PARTS

SOURCE = Path(adsum.__file__).parent
ADAPTERS = (Path(uvicorn_adapter.__file__), Path(uvicorn_server.__file__))
PARTS = Path(uvicorn_parts.__file__)
CONNECTION = Path(connection.__file__)


def _class(path: str) -> type:
    module, _, name = path.partition(":")
    found = getattr(import_module(module), name, None)
    assert isinstance(found, type), f"uvicorn {version('uvicorn')} has no class {path}: adapt {PARTS.name}"
    return found


def _has(kind: type, name: str) -> bool:
    """Returns whether the class defines the name, or a method of it assigns it to `self`."""
    assignment = re.compile(rf"^\s*self\.{name}\b[^=\n]*=(?!=)", re.MULTILINE)
    bases = [base for base in kind.__mro__ if base.__module__.startswith("uvicorn")]
    return hasattr(kind, name) or any(assignment.search(inspect.getsource(base)) for base in bases)


def _missing(parts: Mapping[str, Iterable[str]]) -> list[str]:
    return [
        f"{path.partition(':')[2]}.{name}"
        for path, names in parts.items()
        for name in names
        if not _has(_class(path), name)
    ]


def _attributes(path: Path) -> set[str]:
    """The names that a file uses after a dot, and the methods that it defines."""
    tree = ast.parse(path.read_text())
    methods = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.name for node in ast.walk(tree) if isinstance(node, methods)
    }


def test_uvicorn_has_every_private_part_that_the_adapter_uses() -> None:
    missing = _missing(PRIVATE_PARTS)
    assert not missing, f"uvicorn {version('uvicorn')} lacks {', '.join(missing)}: adapt {PARTS.name}"


def test_a_missing_part_is_named() -> None:
    path = "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"
    assert _missing({path: ("pipeline", "no_such_part")}) == ["HttpToolsProtocol.no_such_part"]


def test_the_private_parts_that_the_adapter_uses_are_listed() -> None:
    listed = {name for names in PRIVATE_PARTS.values() for name in names}
    public = {name for kind in (asyncio.Protocol, asyncio.Transport, asyncio.Event) for name in dir(kind)}
    used = _attributes(ADAPTERS[0]) | _attributes(ADAPTERS[1])
    unlisted = {name for name in used - listed - public for path in PRIVATE_PARTS if _has(_class(path), name)}
    assert not unlisted, f"used of uvicorn, and not listed in PRIVATE_PARTS: {', '.join(sorted(unlisted))}"
    assert not listed - used, f"PRIVATE_PARTS lists what is not used: {sorted(listed - used)}"


def test_no_other_module_uses_a_private_part_of_uvicorn() -> None:
    for path in SOURCE.rglob("*.py"):
        imports = re.findall(r"^\s*(?:from|import) (uvicorn\S*)", path.read_text(), re.MULTILINE)
        allowed = {"uvicorn"} if path == CONNECTION.with_name("server.py") else set()
        assert path in ADAPTERS or set(imports) <= allowed, f"{path.name} imports {imports}"
    listed = {name for names in PRIVATE_PARTS.values() for name in names}
    assert not _attributes(CONNECTION) & listed, f"{CONNECTION.name} uses {_attributes(CONNECTION) & listed} of uvicorn"
